#!/usr/bin/env bash
# Guess: torch.vmap refuses a module that changes its buffers, as it refuses to write into them in place.
# Truth: it refuses only that. A module that assigns a new tensor to its buffer runs, with right results; the buffer
#        is then a tensor of the vmap that is over. It looks healthy (shape, print), and the next read raises.
# Hurts: users who map modules with running averages over samples, models or folds. The RuntimeError comes later and
#        elsewhere, from a state_dict or the next forward pass, and does not name the module that kept the tensor.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 numpy==2.4.6

python -W ignore - <<'PYTHON'
import torch


class Centre(torch.nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.in_place = in_place

    def forward(self, rows):
        if self.in_place:
            self.mean.lerp_(rows.mean(dim=0), 0.1)
        else:
            self.mean = torch.lerp(self.mean, rows.mean(dim=0), 0.1)
        return rows - self.mean


def told(function, *arguments):
    try:
        function(*arguments)
    except RuntimeError as error:
        return str(error)
    return None


print("torch", torch.__version__)
batches = torch.arange(24.0).reshape(2, 4, 3)
refused = told(torch.vmap(Centre(in_place=True)), batches)
print("in place: ", refused and refused[:60])
assert "is not possible" in refused

centre = Centre(in_place=False)
found = torch.vmap(centre)(batches)
right = torch.stack([Centre(in_place=False)(rows) for rows in batches])
print("assigned:  vmap returns, and rightly:", torch.equal(found, right))
print("           the buffer's shape afterwards:", tuple(centre.mean.shape))
assert torch.allclose(found, right)
assert centre.mean.shape == (3,)
assert torch._C._functorch.is_batchedtensor(centre.mean)
reads = {
    "buffer + 1": lambda: centre.mean + 1,
    "next forward pass": lambda: centre(batches[0]),
    "copy of the state_dict": lambda: {name: value.clone() for name, value in centre.state_dict().items()},
}
for name, read in reads.items():
    message = told(read)
    print(f"{name}: {message and message[:80]}")
    assert "escaped" in message
PYTHON
