"""What the project's own tfds builders share."""

from abc import abstractmethod
from typing import Any

import tensorflow_datasets as tfds

DIGITS = tuple("0123456789")
SCANS = """\
E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49; the test part, as scikit-learn ships it."""

with tfds.core.registered.skip_registration():

    class OwnBuilder(tfds.core.GeneratorBasedBuilder):
        """A set that is drawn: a subclass has `features`, `parts` and the examples.

        Attributes:
          citation: of what it is drawn from.
          shuffled: False where examples are drawn at random already.
        """

        name = "own"
        citation: str | None = None
        shuffled = False

        @abstractmethod
        def features(self) -> dict[str, Any]:
            """The tfds features of an example, by name."""

        @abstractmethod
        def parts(self) -> dict[str, Any]:
            """What `_generate_examples` takes after the name of a split, by split."""

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
