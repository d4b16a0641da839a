"""Energy and CO2: the sums of runs that broke off, and what codecarbon itself gives."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from llama4_train.errors import RecipeError, TrainingError
from llama4_train.trackers.carbon import Carbon, read_carbon


@pytest.fixture
def meters(monkeypatch):
    """A codecarbon whose every reading is a kilowatt-hour, a kilogram and ten seconds more."""
    begun = []

    class OfflineEmissionsTracker:
        def __init__(self, **settings):
            self.settings = settings
            self.readings = 0
            begun.append(self)

        def start(self):
            self.started = True

        def flush(self):
            self.readings += 1
            total = SimpleNamespace(
                energy_consumed=1.0 * self.readings,
                emissions=1.0 * self.readings,
                duration=10.0 * self.readings,
                cpu_model="a processor",
                gpu_model="",
            )
            for handler in self.settings["output_handlers"]:
                handler.out(total, None)

        stop = flush

    module, data = ModuleType("codecarbon"), ModuleType("codecarbon.input")
    module.OfflineEmissionsTracker = OfflineEmissionsTracker
    data.DataSource = lambda: SimpleNamespace(
        get_global_energy_mix_data=lambda: {"CHE": {}, "USA": {}}
    )
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    monkeypatch.setitem(sys.modules, "codecarbon.input", data)
    return begun


def test_a_run_that_breaks_off_has_cost_what_it_cost(tmp_path, recipe, meters):
    killed = Carbon(tmp_path, recipe(), country="CHE", every=2)
    for step in range(5):
        killed.log(step, {})
    assert read_carbon(tmp_path)["energy_kwh"] == 2.0
    resumed = Carbon(tmp_path, recipe(), country="CHE")
    resumed.log(4, {})
    resumed.finish()
    resumed.finish()
    found = read_carbon(tmp_path)
    assert (found["energy_kwh"], found["co2_kg"], found["seconds"]) == (3.0, 3.0, 30.0)
    assert [run["energy_kwh"] for run in found["runs"]] == [2.0, 1.0]
    assert {meter.settings["country_iso_code"] for meter in meters} == {"CHE"}


def test_without_a_country_there_is_energy_alone(tmp_path, recipe, meters):
    tracker = Carbon(tmp_path, recipe())
    tracker.finish()
    found = read_carbon(tmp_path)
    assert (found["energy_kwh"], found["co2_kg"], found["country"]) == (1.0, None, None)


def test_nothing_leaves_the_machine(tmp_path, recipe, meters):
    Carbon(tmp_path, recipe()).finish()
    assert meters[0].settings["output_methods"] == []


def test_an_unknown_country_is_refused(tmp_path, recipe, meters):
    with pytest.raises(RecipeError, match=r"country is 'CHEE' \(did you mean 'CHE'"):
        Carbon(tmp_path, recipe(), country="CHEE")
    with pytest.raises(RecipeError, match="every is 0; expected at least 1"):
        Carbon(tmp_path, recipe(), every=0)
    assert not meters


@pytest.mark.parametrize("text", ["words", "[]", '{"runs": [{}]}', '{"runs": 3}', '{"runs": [1]}'])
def test_another_file_is_left_alone(tmp_path, recipe, meters, text):
    (tmp_path / "carbon.json").write_text(text)
    with pytest.raises(TrainingError, match=r"carbon\.json: "):
        Carbon(tmp_path, recipe())
    assert (tmp_path / "carbon.json").read_text() == text


def test_a_missing_module_is_named(tmp_path, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(TrainingError, match=r"pip install 'llama4-train\[carbon\]'"):
        Carbon(tmp_path, recipe())


def test_codecarbon_itself(tmp_path, recipe):
    pytest.importorskip("codecarbon")
    tracker = Carbon(tmp_path, recipe(), country="CHE")
    tracker.log(0, {})
    tracker.finish()
    found = json.loads((tmp_path / "carbon.json").read_text())
    assert found["energy_kwh"] > 0
    # Switzerland's yearly mean is tens of grams for a kilowatt-hour, nobody's is a kilogram.
    assert 0 < found["co2_kg"] < found["energy_kwh"]
    assert [path.name for path in tmp_path.iterdir()] == ["carbon.json"]
