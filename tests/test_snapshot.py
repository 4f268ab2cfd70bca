"""State by parameter name: copies out, copies in, whatever has happened in between."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from sweepvi import optim
from sweepvi.errors import CheckpointError
from sweepvi.optim.snapshot import load_snapshot, snapshot

MAKERS = {
    "clipped_adam": lambda params: optim.ClippedAdam(params, lr=0.1, lrd=0.9),
    "adam": lambda params: optim.Adam(params, lr=0.1, amsgrad=True),
    "adafactor": lambda params: optim.Adafactor(params, lr=0.1),
    "torch": lambda params: torch.optim.Adam(params, lr=0.1),
}
DTYPES = [torch.float32, torch.float64]


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).to(dtype)


def steps(net, optimizer, seeds):
    for seed in seeds:
        torch.manual_seed(seed)
        for param in net.parameters():
            param.grad = torch.randn_like(param)
        optimizer.step()
    return [param.detach().clone() for param in net.parameters()]


def values(net):
    return {name: param.detach().clone() for name, param in net.named_parameters()}


def equal(left, right):
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_going_back_takes_effect_after_any_number_of_steps(make, dtype):
    """Pyro ignores a state that is set after the first step."""
    net = network(dtype)
    optimizer = make(net.named_parameters())
    steps(net, optimizer, range(3))
    saved, then = snapshot(optimizer), values(net)
    first = steps(net, optimizer, range(3, 6))
    steps(net, optimizer, range(6, 9))
    net.load_state_dict(then)
    load_snapshot(optimizer, saved)
    assert equal(steps(net, optimizer, range(3, 6)), first)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_continues_in_another_optimizer_whatever_the_order_of_its_parameters(make):
    net = network()
    optimizer = make(net.named_parameters())
    steps(net, optimizer, range(3))
    other = network()
    other.load_state_dict(net.state_dict())
    backwards = make(list(other.named_parameters())[::-1])
    load_snapshot(backwards, snapshot(optimizer))
    assert equal(steps(net, optimizer, range(3, 6)), steps(other, backwards, range(3, 6)))


def test_shares_no_memory_with_what_is_live():
    net = network()
    optimizer = MAKERS["clipped_adam"](net.named_parameters())
    steps(net, optimizer, range(2))
    saved = snapshot(optimizer)
    copies = {name: {k: v.clone() for k, v in slots.items()} for name, slots in saved.slots.items()}
    steps(net, optimizer, range(2, 4))
    load_snapshot(optimizer, saved)
    steps(net, optimizer, range(4, 6))
    for name, slots in copies.items():
        assert all(torch.equal(saved.slots[name][slot], value) for slot, value in slots.items())


def test_hyperparameters_are_copies_too():
    net = network()
    one, other = (optim.ClippedAdam(net.named_parameters(), clip={"value": 1.0}) for _ in range(2))
    saved = snapshot(one)
    load_snapshot(other, saved, hyperparameters=True)
    clips = [saved.groups[0]["clip"], one.param_groups[0]["clip"], other.param_groups[0]["clip"]]
    assert len(set(map(id, clips))) == 3


def test_another_number_of_groups_is_an_error():
    net = network()
    one = optim.ClippedAdam(net.named_parameters())
    two = optim.ClippedAdam([{"params": list(part.named_parameters(f"{i}"))} for i, part in enumerate(net)])
    named = dict(net.named_parameters())
    with pytest.raises(CheckpointError, match="1 parameter groups, the optimizer 2"):
        load_snapshot(two, snapshot(one), named)


def test_configured_hyperparameters_stay_unless_asked():
    net = network()
    old, new = optim.ClippedAdam(net.named_parameters(), lr=0.1), optim.ClippedAdam(net.named_parameters(), lr=0.5)
    steps(net, old, range(3))
    load_snapshot(new, snapshot(old))
    assert (new.param_groups[0]["lr"], new.param_groups[0]["clock"]) == (0.5, 3)
    load_snapshot(new, snapshot(old), hyperparameters=True)
    assert new.param_groups[0]["lr"] == 0.1


def test_what_does_not_fit_is_one_clear_error_and_changes_nothing():
    net = network()
    optimizer = MAKERS["clipped_adam"](net.named_parameters())
    steps(net, optimizer, range(2))
    saved, before = snapshot(optimizer), snapshot(optimizer)
    saved.shapes["extra"] = saved.shapes.pop("0.bias")
    saved.shapes["1.weight"] = (7, 7)
    with pytest.raises(CheckpointError) as caught:
        load_snapshot(optimizer, saved)
    for part in ("lacks: 0.bias", "only the checkpoint has: extra", "'1.weight' is (1, 2) here, (7, 7)"):
        assert part in str(caught.value)
    after = snapshot(optimizer)
    assert all(torch.equal(after.slots[n][k], v) for n, slots in before.slots.items() for k, v in slots.items())


def test_parameters_without_names_need_them():
    net = network()
    optimizer = optim.ClippedAdam(net.parameters())
    steps(net, optimizer, range(2))
    with pytest.raises(ValueError, match="no names"):
        snapshot(optimizer)
    named = dict(net.named_parameters())
    load_snapshot(optimizer, snapshot(optimizer, named), named)


def test_survives_a_file_that_holds_no_code():
    net = network()
    optimizer = MAKERS["adam"](net.named_parameters())
    steps(net, optimizer, range(3))
    saved, then, file = snapshot(optimizer), values(net), io.BytesIO()
    torch.save(vars(saved), file)
    expected = steps(net, optimizer, range(3, 6))
    file.seek(0)
    net.load_state_dict(then)
    load_snapshot(optimizer, type(saved)(**torch.load(file, weights_only=True)))
    assert equal(steps(net, optimizer, range(3, 6)), expected)


def test_a_parameter_that_has_had_no_gradient_has_no_slots_and_is_no_error():
    net = network()
    optimizer = MAKERS["clipped_adam"](net.named_parameters())
    net[0].weight.grad = torch.ones_like(net[0].weight)
    optimizer.step()
    saved = snapshot(optimizer)
    assert saved.slots.keys() == {"0.weight"}
    load_snapshot(optimizer, saved)
    assert not optimizer.state.get(net[1].bias)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moves_between_devices_exactly():
    net = network()
    optimizer = MAKERS["clipped_adam"](net.named_parameters())
    steps(net, optimizer, range(3))
    there = network().cuda()
    moved = MAKERS["clipped_adam"](there.named_parameters())
    load_snapshot(moved, snapshot(optimizer))
    for name, slots in snapshot(moved).slots.items():
        assert slots["exp_avg"].is_cuda
        assert torch.equal(slots["exp_avg"].cpu(), snapshot(optimizer).slots[name]["exp_avg"])
