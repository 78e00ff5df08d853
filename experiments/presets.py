"""The presets: a whole configuration under a name; any flag changes one value of it."""

import dataclasses
from typing import Any

from experiments.models import classifier, dense, forecasters, text
from experiments.models.cells import ConvLSTM
from experiments.options import (
    Adam,
    Augment,
    Clips,
    Config,
    Cosine,
    Geometry,
    Images,
    LabelledImages,
    LineAugment,
    Lines,
    ModelOptions,
    Muon,
    Noise,
    TaskOptions,
)
from experiments.tasks import (
    classification,
    detection,
    forecasting,
    multilabel,
    regression,
    segmentation,
    text_recognition,
)


def _digits(**options: Any) -> Config:
    return Config(
        epochs=100,
        # 144 validation pictures tell the last checkpoints apart by one or two digits.
        test_checkpoint="last",
        baselines=True,
        data=LabelledImages("digits"),
        augment=Augment(translate=1),
        model=classifier.Options(
            features=64,
            layers=2,
            order="both",
            bidirectional=True,
            pooling="mean",
            dropout=0.3,
        ),
        optimizer=Adam(learning_rate=4e-3, schedule=Cosine(warmup_steps=50)),
        task=classification.Options(label_smoothing=0.1),
        **options,
    )


def _image(source: str, order: str, epochs: int, **model: Any) -> Config:
    return Config(
        epochs=epochs,
        batch_size=128,
        task=classification.Options(),
        data=LabelledImages(source),
        model=classifier.Options(order=order, **model),
    )


def _photos(source: str, epochs: int, order: str, **augment: Any) -> Config:
    """Pictures of 64x64 pixels, read as 64 steps of 192 numbers, patches or lines."""
    return Config(
        epochs=epochs,
        data=LabelledImages(source, size=64),
        augment=Augment(flip=0.5, **augment),
        model=classifier.Options(
            layers=2,
            order=order,
            patch=8,
            bidirectional=True,
            pooling="mean",
            dropout=0.3,
        ),
        optimizer=Adam(schedule=Cosine(warmup_steps=200)),
        task=classification.Options(label_smoothing=0.1),
    )


def _moving(source: str, model: ModelOptions, **options: Any) -> Config:
    return Config(
        data=Clips(source, validation=0.05),
        augment=Geometry(),
        model=model,
        task=forecasting.Options(),
        **options,
    )


def _finding(
    source: str,
    task: TaskOptions,
    model: ModelOptions,
    epochs: int,
    batch_size: int = 32,
) -> Config:
    return Config(
        epochs=epochs,
        batch_size=batch_size,
        data=Images(source),
        augment=Noise(),
        model=model,
        optimizer=Adam(schedule=Cosine(warmup_steps=100)),
        task=task,
    )


PRESETS: dict[str, tuple[str, Config]] = {
    "digits": (
        "1,797 scanned digits of 8x8, rows and columns at once, in a minute",
        _digits(),
    ),
    "digits-angle": (
        "rotation angle of a digit, in degrees: a regression",
        dataclasses.replace(
            _digits(),
            baselines=False,
            data=LabelledImages("digits_angle"),
            task=regression.Options(unit="degrees"),
        ),
    ),
    "mnist-rows": ("MNIST, row by row", _image("mnist", "rows", 12)),
    "mnist-pixels": (
        "MNIST, pixel by pixel: 784 steps",
        _image("mnist", "pixels", 50),
    ),
    "mnist-permuted": (
        "MNIST's pixels in one random order",
        _image("mnist", "permuted", 50),
    ),
    "fashion-rows": (
        "Fashion-MNIST, row by row",
        _image("fashion_mnist", "rows", 12),
    ),
    "cifar10-rows": ("CIFAR-10, row by row", _image("cifar10", "rows", 20)),
    "histology": (
        "eight kinds of tissue on slides of colorectal cancer: patches of 8x8",
        _photos("colorectal_histology", 60, "patches", rotate=180, translate=4),
    ),
    "malaria": (
        "blood cells with malaria's parasites or without: patches of 8x8",
        _photos("malaria", 20, "patches", rotate=180, translate=4),
    ),
    "flowers": (
        "photographs of five kinds of flowers, rows and columns at once",
        _photos("tf_flowers", 60, "both", rotate=20, crop=0.5),
    ),
    "flowers-102": (
        "Oxford's 102 kinds of flowers, ten training images of each",
        _photos("oxford_flowers102", 150, "both", rotate=20, crop=0.5),
    ),
    "moving-digits": (
        "ten frames of two moving digits in, the next ten out: forecasting",
        _moving(
            "moving_digits",
            forecasters.EncoderForecasterOptions(features=48, layers=2),
            steps=1500,
            batch_size=2,
            eval_every=750,
            optimizer=Adam(learning_rate=1.5e-3),
        ),
    ),
    "moving-digits-predrnn": (
        "the same by PredRNN, whose memory passes through all layers",
        _moving(
            "moving_digits",
            forecasters.PredRNNOptions(features=32, layers=3),
            steps=1500,
            batch_size=2,
            eval_every=750,
            optimizer=Adam(learning_rate=1.5e-3),
        ),
    ),
    "moving-fashion": (
        "the same with Fashion-MNIST, as published: four ConvLSTMs of 128, for a GPU",
        _moving(
            "moving_digits/fashion_mnist",
            forecasters.StackedOptions(
                cell=ConvLSTM(kernel_size=5), features=128, layers=4, engine="scan"
            ),
            epochs=200,
            batch_size=16,
            optimizer=Adam(learning_rate=5e-4),
        ),
    ),
    "video-digits": (
        "class of a moving digit, from a clip: a ConvLSTM classifier",
        Config(
            epochs=10,
            batch_size=16,
            task=classification.Options(),
            data=LabelledImages("moving_digit/content", size=32),
            model=classifier.Options(cell=ConvLSTM(), features=16),
        ),
    ),
    "moving-motion": (
        "direction of a moving digit, from a clip: a ConvLSTM classifier",
        Config(
            epochs=10,
            batch_size=16,
            task=classification.Options(),
            data=LabelledImages("moving_digit/motion", size=32),
            model=classifier.Options(cell=ConvLSTM(), features=16),
        ),
    ),
    "segment-digits": (
        "segmentation of digits on a cluttered canvas: a U-Net with a ReNet",
        _finding(
            "digits_masks", segmentation.Options(), dense.ReNetOptions(features=64), 6
        ),
    ),
    "detect-digits": (
        "detection of digits: an LSTM that emits boxes until it stops",
        _finding(
            "digits_boxes",
            detection.Options(),
            dense.RecurrentDetectorOptions(features=64, max_detections=6),
            22,
        ),
    ),
    "detect-moving-digits": (
        "detection in clips with occlusion: a bottleneck ConvLSTM over frames",
        _finding(
            "moving_digits_boxes",
            detection.Options(),
            dense.BottleneckOptions(features=64),
            5,
            batch_size=4,
        ),
    ),
    "text-lines": (
        "text recognition in many typefaces: a CNN, a bidirectional LSTM and CTC",
        Config(
            steps=1400,
            batch_size=16,
            eval_every=700,
            data=Lines("text_lines", validation=0.05, normalize="line", buckets=3),
            augment=LineAugment(warp=0.08),
            model=text.VGSLOptions(),
            optimizer=Muon(learning_rate=5e-3, schedule=Cosine(warmup_steps=200)),
            task=text_recognition.Options(),
        ),
    ),
    "features": (
        "labels per step, from feature files of a frozen network",
        Config(
            epochs=30,
            batch_size=16,
            data=LabelledImages("features.csv"),
            model=classifier.Options(features=64, bidirectional=True, dropout=0.2),
            task=multilabel.Options(),
        ),
    ),
    "cifar10-pixels": (
        "CIFAR-10, pixel by pixel: 1,024 steps",
        _image("cifar10", "pixels", 50),
    ),
}
