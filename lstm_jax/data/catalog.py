"""Names of the data sets that are known before TensorFlow Datasets is asked."""

VIDEOS = {  # their configs, the default first
    "moving_digits": ("digits", "mnist", "fashion_mnist", "scans"),
    "moving_digit": ("content", "motion"),
}
SCENES = {  # what their pictures or clips come with, the default first
    "digits_masks": ("masks",),
    "digits_boxes": ("boxes",),
    "moving_digits_boxes": ("boxes", "masks"),
}
LINES = {"text_lines": ("matplotlib", "all")}  # of text, the default fonts first
MORE = ("unseen_fonts",)  # splits to test on, beside the one that is called so
# Our sets and their versions: what was prepared by another one is prepared anew.
OWN = dict.fromkeys(("digits", "digits_angle", *VIDEOS, *SCENES, *LINES), "1.0.0")
OWN |= dict.fromkeys((*SCENES, *LINES), "1.1.0")
STOCK = tuple("mnist fashion_mnist kmnist emnist cifar10 cifar100 svhn_cropped".split())
