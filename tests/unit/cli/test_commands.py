"""`snowmelt plan`, `snowmelt backbones` and what all commands have in common."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torchvision
from typer.testing import CliRunner, Result

from snowmelt_cli.__main__ import app
from snowmelt_trainer.contract.catalog import architectures
from tests.unit.cli.test_validate import JOB


def snowmelt(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def plan(tmp_path: Path, text: str, *options: str) -> Result:
    (tmp_path / "job.yaml").write_text(text)
    return snowmelt("plan", tmp_path / "job.yaml", *options)


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_help_needs_neither_torch_nor_ray_nor_kubernetes() -> None:
    code = (
        "import sys\n"
        "try:\n from snowmelt_cli.__main__ import main; main()\n"
        "finally:\n print({'torch', 'ray', 'kubernetes', 'pydantic'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "Fine-tune pretrained vision backbones" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_validating_and_listing_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    for arguments in (["validate", str(tmp_path / "job.yaml")], ["backbones"]):
        code = (
            "import sys\n"
            "try:\n from snowmelt_cli.__main__ import main; main()\n"
            "finally:\n print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"


def test_the_console_script_is_installed() -> None:
    done = subprocess.run([Path(sys.executable).with_name("snowmelt"), "--help"], capture_output=True, check=False)
    assert done.returncode == 0


def test_every_classifier_of_torchvision_is_listed_with_its_weights() -> None:
    listed = {row[0]: row for row in map(cells, snowmelt("backbones").stdout.splitlines()[1:])}
    assert set(listed) == set(torchvision.models.list_models(module=torchvision.models))
    assert listed["resnet50"] == ["resnet50", "25.6 M", "1 px", "IMAGENET1K_V1, IMAGENET1K_V2*"]


@pytest.mark.parametrize("pattern", ["resnet1*", "resnet1", "*resnet1*"])
def test_a_pattern_or_a_part_of_a_name_narrows_the_list(pattern: str) -> None:
    listed = [cells(line)[0] for line in snowmelt("backbones", pattern).stdout.splitlines()[1:]]
    assert {"resnet18", "resnet101", "resnet152"} <= set(listed) < set(architectures())


def test_a_pattern_that_matches_nothing_is_told_what_is_near() -> None:
    result = snowmelt("backbones", "resnet51")
    assert (result.exit_code, result.stderr) == (
        1,
        "no architecture matches 'resnet51' (did you mean resnet50 or resnet18 or resnet152?)\n",
    )


def test_a_plan_shows_the_stages_with_their_shares_and_rates(tmp_path: Path) -> None:
    more = (
        "  unfreezing: {maxStages: 3, stage: {maxEpochs: 4}}\n  optimization: {learningRate: 0.01, layerDecay: 0.5}\n"
    )
    result = plan(tmp_path, JOB + more, "--classes", "10")
    assert result.exit_code == 0
    rows = [cells(line) for line in result.stdout.splitlines()]
    assert ["head", "5,130", "1"] in rows
    stages = [row for row in rows if re.match(r"\d/3 ", row[0])]
    assert stages[0] == ["1/3 head", "head", "5,130", "0.0%", "solver, else 0.01", "≤ 4"]
    assert (stages[-1][2], stages[-1][3]) == ("11,181,642", "100.0%")
    assert len(stages) == 3


def test_classes_are_counted_where_the_data_can_be_seen(tmp_path: Path) -> None:
    for name in ("boot", "shoe", "sock", ".cache"):
        (tmp_path / "volumes/shoes/train" / name).mkdir(parents=True)
        (tmp_path / "volumes/shoes/train" / name / "1.png").touch()
    result = plan(tmp_path, JOB, "--volumes", str(tmp_path / "volumes"))
    assert ["head", "1,539", "1"] in [cells(line) for line in result.stdout.splitlines()]
    assert "cannot be seen" not in result.stdout


def test_the_classes_of_a_table_are_those_that_its_training_rows_name(tmp_path: Path) -> None:
    table = tmp_path / "volumes/shoes/table.csv"
    table.parent.mkdir(parents=True)
    table.write_text("uri,label,split\na.png,boot,train\nb.png,shoe,train\nc.png,boot,train\nd.png,hat,test\n")
    result = plan(tmp_path, JOB.replace("shoes/train", "shoes/table.csv"), "--volumes", str(tmp_path / "volumes"))
    assert ["head", "1,026", "1"] in [cells(line) for line in result.stdout.splitlines()]


def test_data_that_cannot_be_trained_on_is_refused_by_the_plan(tmp_path: Path) -> None:
    (tmp_path / "volumes/shoes/train").mkdir(parents=True)
    result = plan(tmp_path, JOB, "--volumes", str(tmp_path / "volumes"))
    assert (result.exit_code, "pvc://shoes/train" in result.stderr) == (1, True)


def test_a_plan_says_when_it_does_not_know_the_classes(tmp_path: Path) -> None:
    assert "counted for 1,000 classes" in plan(tmp_path, JOB, "--volumes", str(tmp_path)).stdout


def test_a_plan_says_when_its_rates_follow_from_the_number_of_images(tmp_path: Path) -> None:
    assert "those of 256 images in a step" in plan(tmp_path, JOB, "--classes", "10").stdout
    for given in ("batchSize: 64", "learningRate: 0.01"):
        result = plan(tmp_path, f"{JOB}  optimization: {{{given}}}\n", "--classes", "10")
        assert (result.exit_code, "images in a step" in result.stdout) == (0, False)


def test_a_stage_that_names_no_layer_group_is_refused_by_the_plan(tmp_path: Path) -> None:
    result = plan(tmp_path, JOB + "  unfreezing: {strategy: Custom, stages: [{unfreeze: [layr4]}]}\n")
    assert result.exit_code == 1
    assert "spec.unfreezing.stages[0].unfreeze: 'layr4' matches no layer group; nearest: 'layer4'" in result.stderr


def test_images_too_small_for_the_network_are_refused_by_the_plan(tmp_path: Path) -> None:
    text = JOB.replace("resnet18", "vgg11").replace('train"}}', 'train"}, imageSize: 16}')
    result = plan(tmp_path, text)
    assert result.exit_code == 1
    assert "spec.data.imageSize: vgg11 cannot process 16x16" in result.stderr


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_bad_manifest_is_answered_as_validate_answers_it(tmp_path: Path, command: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB + "  foo: 1\n")
    result = snowmelt(command, tmp_path / "job.yaml")
    assert (result.exit_code, result.stderr) == (1, snowmelt("validate", tmp_path / "job.yaml").stderr)


def test_a_file_with_two_jobs_is_too_many_for_one_run(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB + "---\n" + JOB)
    assert "there are 2 FineTuneJobs in it: give a file with one" in snowmelt("run", tmp_path / "job.yaml").stderr
