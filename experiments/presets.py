"""The presets: named configurations; each flag replaces one value."""

import dataclasses
from typing import Any

from experiments.models import classifier, dense, forecasters, sequencer, text
from experiments.models.cells import ConvLSTM
from experiments.options import (
    Adam,
    Augment,
    Clips,
    Config,
    Cosine,
    Geometry,
    Images,
    Joint,
    LabelledImages,
    LineAugment,
    Lines,
    ModelOptions,
    Muon,
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
        # With 144 validation images, the last checkpoints differ by one or two errors.
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
    """Images of 64x64 pixels as sequences of 64 steps with 192 features."""
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


def _dense(
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
        augment=Joint(),
        model=model,
        optimizer=Adam(schedule=Cosine(warmup_steps=100)),
        task=task,
    )


PRESETS: dict[str, tuple[str, Config]] = {
    "digits": (
        "1,797 scanned digits of 8x8: an LSTM, rows and columns",
        _digits(),
    ),
    "digits-angle": (
        "regression: the rotation angle of a digit, in degrees",
        dataclasses.replace(
            _digits(),
            baselines=False,
            data=LabelledImages("digits_angle"),
            task=regression.Options(unit="degrees"),
        ),
    ),
    "mnist-rows": ("MNIST, one row per step", _image("mnist", "rows", 12)),
    "mnist-pixels": (
        "MNIST, one pixel per step: 784 steps",
        _image("mnist", "pixels", 50),
    ),
    "mnist-permuted": (
        "MNIST, one pixel per step, in one fixed random order",
        _image("mnist", "permuted", 50),
    ),
    "fashion-rows": (
        "Fashion-MNIST, one row per step",
        _image("fashion_mnist", "rows", 12),
    ),
    "cifar10-rows": ("CIFAR-10, one row per step", _image("cifar10", "rows", 20)),
    "histology": (
        "eight tissue types in colorectal histology, 8x8 patches",
        _photos("colorectal_histology", 60, "patches", rotate=180, translate=4),
    ),
    "malaria": (
        "blood cells, with or without malaria, as 8x8 patches",
        _photos("malaria", 20, "patches", rotate=180, translate=4),
    ),
    "flowers": (
        "photographs of five kinds of flowers, rows and columns",
        _photos("tf_flowers", 60, "both", rotate=20, crop=0.5),
    ),
    "flowers-102": (
        "Oxford Flowers 102, ten training images per class",
        _photos("oxford_flowers102", 150, "both", rotate=20, crop=0.5),
    ),
    "photos": (
        "your photographs: convolutions, LSTMs along both axes",
        Config(
            steps=1000,
            eval_every=100,
            data=LabelledImages("tf_flowers", size=64),
            augment=Augment(flip=0.5),
            model=sequencer.Options(dropout=0.1),
            optimizer=Muon(
                learning_rate=4e-3,
                schedule=Cosine(warmup_steps=100),
                weight_decay=0.02,
                ema=0.99,
            ),
            task=classification.Options(label_smoothing=0.1),
        ),
    ),
    "moving-digits": (
        "video prediction: two moving digits, 10 frames from 10",
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
        "video prediction: two moving digits, with PredRNN",
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
        "video prediction: moving Fashion-MNIST images, for a GPU",
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
        "video classification: the class of a moving digit",
        Config(
            epochs=10,
            batch_size=16,
            task=classification.Options(),
            data=LabelledImages("moving_digit/content", size=32),
            model=classifier.Options(cell=ConvLSTM(), features=16),
        ),
    ),
    "moving-motion": (
        "video classification: the direction of a moving digit",
        Config(
            epochs=10,
            batch_size=16,
            task=classification.Options(),
            data=LabelledImages("moving_digit/motion", size=32),
            model=classifier.Options(cell=ConvLSTM(), features=16),
        ),
    ),
    "segment-digits": (
        "segmentation of digits on clutter: a U-Net with a ReNet",
        _dense(
            "digits_masks", segmentation.Options(), dense.ReNetOptions(features=64), 6
        ),
    ),
    "detect-digits": (
        "detection of digits: an LSTM that outputs one box a step",
        _dense(
            "digits_boxes",
            detection.Options(),
            dense.RecurrentDetectorOptions(features=64, max_detections=6),
            22,
        ),
    ),
    "detect-moving-digits": (
        "detection in video with occlusion: a ConvLSTM",
        _dense(
            "moving_digits_boxes",
            detection.Options(),
            dense.BottleneckOptions(features=64),
            5,
            batch_size=4,
        ),
    ),
    "text-lines": (
        "text recognition: a CNN, a bidirectional LSTM and CTC",
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
        "labels for each step of feature files (.npy)",
        Config(
            epochs=30,
            batch_size=16,
            data=LabelledImages("features.csv"),
            model=classifier.Options(features=64, bidirectional=True, dropout=0.2),
            task=multilabel.Options(),
        ),
    ),
    "cifar10-pixels": (
        "CIFAR-10, one pixel per step: 1,024 steps",
        _image("cifar10", "pixels", 50),
    ),
}
