"""Names of the data sets that are known without importing TensorFlow Datasets."""

VIDEOS = {  # configs of each data set, the default first
    "moving_digits": ("digits", "mnist", "fashion_mnist", "scans"),
    "moving_digit": ("content", "motion"),
}
SCENES = {  # target types of each data set, the default first
    "digits_masks": ("masks",),
    "digits_boxes": ("boxes",),
    "moving_digits_boxes": ("boxes", "masks"),
}
LINES = {"text_lines": ("matplotlib", "all")}  # sets of fonts, the default first
MORE = ("unseen_fonts",)  # additional test splits
# Our data sets and their versions: a set prepared by another version is rebuilt.
OWN = dict.fromkeys(("digits", "digits_angle", *VIDEOS, *SCENES, *LINES), "1.0.0")
OWN |= dict.fromkeys((*SCENES, *LINES), "1.1.0")
STOCK = tuple("mnist fashion_mnist kmnist emnist cifar10 cifar100 svhn_cropped".split())
