"""The networks of kraken's files, beside its own; `pip install kraken` brings it."""

import numpy as np
import pytest

from lstm_jax.models import VGSLNet, load_kraken

pytest.importorskip("kraken")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow  # compared in `make test-all`

SPECS = (
    # What `ketos train` takes unless it is told otherwise, kraken 7.1.
    "[1,120,0,1 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,9,64 Do0.1,2 Mp2,2 "
    "Cr3,9,64 Do0.1,2 S1(1x0)1,3 Lbx200 Do0.1,2 Lbx200 Do0.1,2 Lbx200 Do0.5 O1c5]",
    "[1,48,0,1 Cr4,2,16,4,2 Gn4 Cl3,3,8 Mp2,2 Ct3,3,8 Clr3,3,8 S1(1x0)1,3 Lfx16 Lrx12 "
    "Gbx10 O1c5]",
    "[1,1,0,48 Lbx20 Do O1c5]",
    "[1,16,0,1 Cr3,3,8 (Cr3,3,4 [Cr1,1,6 Cr3,3,4] I) Mp2,2 Lfys12 Lbx8 O1c5]",
    "[1,30,0,1 Cr3,3,32,2,2 Gn32 S1(1x0)1,3 O1c16 O1c5]",
)


@pytest.mark.parametrize("spec", SPECS)
def test_a_line_has_the_same_logits(spec, tmp_path):
    from kraken.lib.vgsl import TorchVGSLModel
    from kraken.models.writers import write_safetensors

    torch.manual_seed(0)
    codec = {character: [k] for k, character in enumerate("abcd", 1)}
    model = TorchVGSLModel(vgsl=spec, codec=codec, model_type=["recognition"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    write_safetensors([model.eval()], tmp_path / "a.safetensors")
    found = load_kraken(tmp_path / "a.safetensors")
    height = found.spec.height if found.spec.height > 1 else found.spec.channels
    rng = np.random.default_rng(0)
    images = rng.random((2, height, 203, 1), np.float32)
    lengths = np.asarray([203, 97])
    ours = VGSLNet(found.spec).apply({"params": found.params}, images, lengths=lengths)
    for image, length, logits in zip(images, lengths, ours, strict=True):
        theirs = torch.from_numpy(image[None, :, :length].transpose(0, 3, 1, 2))
        if found.spec.height == 1:
            theirs = theirs.transpose(1, 2)
        with torch.no_grad():
            wanted = model.nn(theirs, None)[0][0, :, 0].numpy().T
        assert np.ptp(wanted) > 0.1
        np.testing.assert_allclose(logits[: len(wanted)], wanted, atol=1e-5)
