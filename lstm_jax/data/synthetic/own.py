"""The base class of this project's tfds builders."""

from abc import abstractmethod
from typing import Any

import tensorflow_datasets as tfds

DIGITS = tuple("0123456789")
SCANS = """\
E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49; the test part, as scikit-learn ships it."""

with tfds.core.registered.skip_registration():

    class OwnBuilder(tfds.core.GeneratorBasedBuilder):
        """A generated data set; subclasses define `features`, `parts` and the examples.

        Attributes:
          citation: the source of the images.
          shuffled: False if the examples are already in random order.
        """

        name = "own"
        citation: str | None = None
        shuffled = False

        @abstractmethod
        def features(self) -> dict[str, Any]:
            """The tfds features of an example by name."""

        @abstractmethod
        def parts(self) -> dict[str, Any]:
            """The second argument of `_generate_examples` for each split."""

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self.__doc__,
                features=tfds.features.FeaturesDict(self.features()),
                citation=self.citation,
                disable_shuffling=not self.shuffled,
            )

        def _split_generators(self, dl_manager: Any) -> dict:
            del dl_manager  # nothing is downloaded
            parts = self.parts().items()
            return {
                split: self._generate_examples(split, part) for split, part in parts
            }
