"""A task and a network of somebody else: a file each, and a line each here."""

from added import bag_of_patches, ordinal
from experiments.models import MODELS
from experiments.tasks import TASKS

TASKS[ordinal.KIND.name] = ordinal.KIND
MODELS[bag_of_patches.KIND.name] = bag_of_patches.KIND
