"""Names of the splits, as people write them in folders and tables."""

import re
from pathlib import Path

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.file_tree import hidden

WORDS = {
    "train": "train training trainset trainingset trn".split(),
    "validation": "val valid validate validation valset validationset dev devset"
    "".split(),
    "test": "test testing testset tst eval evaluation".split(),
}
SPELLINGS = {word: split for split, words in WORDS.items() for word in words}
# Words that may stand beside the name of a split, as in seg_train or Train_images.
_BESIDE = frozenset("seg set data dataset image images img imgs split".split())


def split_of(name: str) -> str | None:
    """The split that a name spells, in any case, such as Training or seg_test1.

    Returns:
      "train", "validation" or "test"; None for other names, such as train_station.
    """
    words = re.findall(r"[^\W\d_]+", name.casefold())
    found = [SPELLINGS[word] for word in words if word in SPELLINGS]
    others = [word for word in words if word not in SPELLINGS]
    return found[0] if len(found) == 1 and _BESIDE.issuperset(others) else None


def split_folders(path: Path) -> dict[str, Path]:
    """Folders in `path` whose names spell a split; {} without one for training.

    Raises:
      DataError: two folders are of the same split.
    """
    if not path.is_dir():
        return {}
    inside = sorted(path.iterdir())
    folders = [f for f in inside if f.is_dir() and not hidden(f.name)]
    found = one_each(path, [(split_of(f.name), f) for f in folders])
    return found if "train" in found else {}


def one_each(path: Path, folders: list[tuple[str | None, Path]]) -> dict[str, Path]:
    """The folder of each split; those of no split are left out.

    Raises:
      DataError: two folders are of the same split.
    """
    found: dict[str, Path] = {}
    for split, folder in folders:
        if split in found:
            raise DataError(
                f"{path}: holds both {found[split].name} and {folder.name}; keep one"
            )
        if split:
            found[split] = folder
    return found
