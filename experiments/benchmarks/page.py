"""Cuts the lines of a scanned book page, to test a text recogniser on real data.

    python -m experiments.benchmarks.page input.jpg page/

`input.jpg` is tests/resources/input.jpg of kraken: page 214 of a French book of about
1800, 1456x2184, with bleed-through from the other side.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 1456, 2184
LEFT, RIGHT, TOP = 499, 1310, 377  # column limits; centre of the first line
PITCH, HALF = 49, 25  # line distance; half of a line's height
SPLITS = {"train": range(10), "val": range(10, 12), "test": range(12, 24)}
TEXT = """\
cerveau. Tous ces faits paroissent incon-
testables; on doit être surpris qu'ils aient
échappés à la perspicacité des anciens; mais,
si quelque chose peut leur servir d'excuse,
nous devons considérer qu'il s'est écoulé à
peine un siècle, depuis que nous avons com-
mencé à croire que les insectes et les mol-
lusques méritoient quelque attention, et
qu'avant ce tems on les regardoit comme des
êtres immondes, vil produit de la pourri-
ture ou de la corruption, et peu faits pour
occuper nos regards.
Si nous en exceptons Dicquemare, qui a
publié quelques faits sur les poulpes, leur
histoire nous est encore mal connue, et on
ne peut deviner par quelle fatalité un mol-
lusque aussi remarquable a été si peu l'objet
des observations; car nous avons vu que,
depuis Aristote, on n'a presque point ajouté
à ce que ce philosophe a écrit sur ces ani-
maux. En 1752, Bernard de Fischer publia
un Mémoire (1) sur un poulpe qui venoit
de la Grèce, et que nous ne pouvons mé-
connoître pour le poulpe commun. Ce mé-""".split("\n")


def cut(page: Path, folder: Path) -> None:
    """Writes SPLIT/NN.png and .gt.txt: 10 training, 2 validation and 12 test lines."""
    with Image.open(page) as image:
        if image.size != SIZE:
            raise ValueError(f"{page} is {image.size}, but must be {SIZE}")
        column = np.asarray(image.convert("L"))[:, LEFT:RIGHT].astype(int)
    for split, numbers in SPLITS.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for k in numbers:
            middle = TOP + PITCH * k
            line = column[middle - HALF : middle + HALF]
            paper = np.median(line, 1, keepdims=True)
            inked = (line < paper - 60)[7:-7].sum(0)
            found = np.flatnonzero(np.convolve(inked, np.ones(5), "same") > 4)
            left, right = max(found[0] - 8, 0), found[-1] + 8
            pixels = line[:, left:right].astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{k:02}.png")
            text = folder / split / f"{k:02}.gt.txt"
            text.write_text(f"{TEXT[k]}\n", encoding="utf-8")


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(sys.argv[2]))
