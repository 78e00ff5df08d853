"""ResNets equal the same network in PyTorch, whose weights they read from a file."""

import jax
import numpy as np
import pytest

from lstm_jax.models import ResNet, load_resnet

torch = pytest.importorskip("torch", reason="PyTorch is compared with, not required")
safetensors = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.slow  # compared in `make test-all`
nn = torch.nn
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Block(nn.Module):
    """Named and shaped as in torchvision."""

    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        out = 4 * width if bottleneck else width
        shapes = [(inputs, width, 3, stride), (width, out, 3, 1)]
        if bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride)]
            shapes.append((width, out, 1, 1))
        self.count = len(shapes)
        for k, (a, b, side, step) in enumerate(shapes, start=1):
            conv = nn.Conv2d(a, b, side, step, padding=side // 2, bias=False)
            setattr(self, f"conv{k}", conv)
            setattr(self, f"bn{k}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride > 1 or inputs != out:
            shortcut = nn.Conv2d(inputs, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out))

    def forward(self, x):
        y = x
        for k in range(1, self.count + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
            y = torch.relu(y) if k < self.count else y
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


class Reference(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        inputs, bottleneck = 64, depth == 50
        for stage, count in enumerate(BLOCKS[depth], start=1):
            width, blocks = 32 << stage, []
            for block in range(count):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(Block(inputs, width, stride, bottleneck))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


@pytest.mark.parametrize("depth", BLOCKS)
def test_equals_torch(depth, tmp_path):
    torch.manual_seed(0)
    module = Reference(depth)
    for name, array in module.state_dict().items():
        if name.endswith("running_mean") or ("bn" in name and name.endswith("bias")):
            array.normal_(0, 0.5)
        elif array.ndim == 1 and not name.endswith("bias"):  # gains and variances
            array.uniform_(0.5, 2)
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(module.state_dict(), path)
    params = load_resnet(path, depth)
    module.eval().double()
    apply = jax.jit(ResNet(depth).apply)
    for size in [(32, 48), (45, 39)] if depth == 18 else [(35, 24)]:
        frames = np.random.default_rng(1).standard_normal((2, *size, 3))
        with torch.no_grad():
            want = module(torch.tensor(frames).permute(0, 3, 1, 2)).numpy()
        got = apply({"params": params}, frames.astype(np.float32))
        # Up to 50 layers in float32 against float64.
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
