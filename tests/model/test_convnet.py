"""The convolutional network: a network among others, and edges as the domain has them."""

import pytest
import torch
import xarray as xr

from sciwm import testing
from sciwm.model.convnet import ConvNet, _Conv
from sciwm.model.objectives import build_network
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes
from sciwm.model.whitening import Whitening
from sciwm.tokens.place import Distances, Lattice, Place
from sciwm.world.rollout import predicted_latents
from tests.networks import globe, network, window
from tests.worlds import climate_world, config

PADS = {(False, False): ("replicate", "replicate"), (False, True): ("replicate", "circular")}
PADS |= {(True, False): ("circular", "replicate"), (True, True): ("circular", "circular")}


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("periodic", PADS)
def test_edges_are_those_of_the_domain(periodic, side):
    """Closed or repeated, by torch's own padding; poles are edges like any other."""
    torch.manual_seed(0)
    reach, (tall, wide) = side // 2, PADS[periodic]
    poles = (not periodic[0] and periodic[1],) * 2
    conv = _Conv(Lattice(4, 6, periodic, poles), 2, 3, side)
    x = torch.randn(2, 2, 4, 6)
    padded = torch.nn.functional.pad(x, (reach, reach, 0, 0), mode=wide)
    padded = torch.nn.functional.pad(padded, (0, 0, reach, reach), mode=tall)
    by_hand = torch.nn.functional.conv2d(padded, conv.weight, conv.bias)
    torch.testing.assert_close(conv(x), by_hand, rtol=1e-4, atol=1e-5)


def test_its_latents_are_the_cells_and_its_head_gives_them_back():
    grid = globe(channels=2)
    made, tokens = network(grid, objective={"kind": "convnet"}), window(grid)
    assert torch.equal(made.encode(tokens.features), tokens.cells)
    predicted = made.predict(tokens.cells[:, :2], tokens.known)
    assert predicted.shape == tokens.cells[:, 2:].shape
    assert torch.equal(made.objective.head(predicted), predicted)
    assert not any(p.requires_grad for p in made.objective.head.parameters())


def test_its_step_is_a_change_of_the_last_state():
    """As large as states change over a step: the untrained network is not far from persistence."""
    grid = globe()
    made, tokens = network(grid, objective={"kind": "convnet"}, opened=False), window(grid)
    assert isinstance(made.dynamics, ConvNet)
    start = tokens.cells[:, :2]
    made.dynamics.change.fill_(0.0)
    assert torch.equal(made.predict(start, tokens.known)[:, 0], start[:, -1])
    changes = []
    for change in (0.5, 1.0):
        made.dynamics.change.fill_(change)
        changes.append(made.predict(start, tokens.known)[:, 0] - start[:, -1])
    torch.testing.assert_close(changes[1], 2 * changes[0], rtol=1e-4, atol=1e-5)


def test_every_cell_sees_far_but_not_beyond_its_blocks():
    """Nine convolutions of three cells and one of five reach 11 cells: eleven, and no further."""
    grid = globe((2, 40), (1, 1))
    made = network(grid, objective={"kind": "convnet"})
    known = window(grid, 1).known
    start = torch.randn(1, 2, 80, 1)
    other = start.clone()
    other[:, :, 0] += 1
    told = (made.predict(other, known)[:, 0] - made.predict(start, known)[:, 0]).abs()
    reached = told.view(2, 40).amax(0) > 1e-9
    assert reached[:12].all()
    assert reached[-11:].all()  # the other way round the globe
    assert not reached[12:-11].any()


def test_a_molecule_has_no_rows_and_columns():
    inputs = Inputs(
        Place(torch.eye(5), Distances(torch.zeros(5, 5))), Whitening.blank(groups=5, features=5), 5
    )
    message = r"got objective.kind = 'convnet' for states without rows and columns, expected a grid"
    with pytest.raises(ValueError, match=message):
        build_network(inputs, Sizes(), ObjectiveSettings(kind="convnet"))


def test_its_decoder_forecasts_are_its_own_output(tmp_path):
    ds = testing.small_climate(years=1)
    settings = config(objective={"kind": "convnet"})
    world, _ = climate_world(ds, tmp_path, leads=(1, 2), settings=settings, climatology="constant")
    assert world.method == "convnet"
    part = ds.isel(time=slice(0, 12))
    forecast = world.forecast(part, readout="decoder")
    state = world.states(part)
    (rolled,) = predicted_latents(world, state, world.positions(part), [1, 2])
    fields = world.tokenizer.fields(rolled.latents)
    labelled = xr.DataArray(
        fields.numpy(),
        dims=("init_time", "lead_time", "channel", "latitude", "longitude"),
        coords={"latitude": ds.latitude, "longitude": ds.longitude},
    )
    times = forecast.init_time + forecast.lead_time
    expected = world.statistics.restore(labelled, times.drop_vars(["init_time", "lead_time"]))
    for name in ("z500", "t850"):
        torch.testing.assert_close(
            torch.from_numpy(forecast[name].values.copy()),
            torch.from_numpy(expected[name].transpose(*forecast[name].dims).values.copy()),
            rtol=1e-4,
            atol=1e-3,
        )
