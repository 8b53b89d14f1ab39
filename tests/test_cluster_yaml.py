"""cluster.yaml against Ray's own schema, and against what that schema lets through."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysl import cluster

ROOT = Path(__file__).parents[1]
# Parameters of EC2's RunInstances that a node_config may hold; Ray passes them on unread.
EC2_KEYS = {
    "BlockDeviceMappings", "EbsOptimized", "IamInstanceProfile", "ImageId", "InstanceMarketOptions", "InstanceType",
    "KeyName", "MetadataOptions", "NetworkInterfaces", "Placement", "SecurityGroupIds", "SubnetIds", "TagSpecifications",
    "UserData",
}  # fmt: skip


@pytest.fixture
def launcher() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def validate(config: dict[str, Any]) -> None:
    """What `ray up` checks before it calls AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_the_launcher_file(launcher: dict[str, Any]) -> None:
    validate(launcher)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("head_nodes", {}),
        ("available_node_types.cpu_data.max_worker", 4),
        ("head_node_type", "haed"),
        ("max_workers", "many"),
    ],
)
def test_ray_refuses_a_mistake(launcher: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place = launcher
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(Exception, match=r"\w"):
        validate(launcher)


def test_groups_are_a_resting_head_and_two_that_grow_from_nothing(launcher: dict[str, Any]) -> None:
    groups = launcher["available_node_types"]
    assert groups[launcher["head_node_type"]]["resources"] == {"CPU": 0}
    growing = {name: group for name, group in groups.items() if name != launcher["head_node_type"]}
    assert all(group["min_workers"] == 0 < group["max_workers"] for group in growing.values())
    assert sum(group["max_workers"] for group in growing.values()) <= launcher["max_workers"]
    assert growing["cpu_data"]["resources"].get("GPU", 0) == 0
    assert growing["gpu_spot"]["resources"]["GPU"] >= 1
    assert growing["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert growing["gpu_spot"]["docker"]["worker_image"].endswith("-gpu")


def test_node_configs_hold_only_what_ec2_knows(launcher: dict[str, Any]) -> None:
    for name, group in launcher["available_node_types"].items():
        assert set(group["node_config"]) <= EC2_KEYS, name
        assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", group["node_config"]["InstanceType"]), name


def test_machines_name_their_image_and_have_room_for_it(launcher: dict[str, Any]) -> None:
    """Ray's own default image is of 2022: no driver for torch of today, and EC2 refuses a disk below its 140 GB."""
    for name, group in launcher["available_node_types"].items():
        assert group["node_config"]["ImageId"].startswith("ami-"), name
        assert group["node_config"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] >= 140, name


def test_run_folders_can_be_written_by_the_containers(launcher: dict[str, Any]) -> None:
    mounted, opened = launcher["initialization_commands"][-2:]
    assert "mount -t nfs4" in mounted
    assert opened == "sudo chmod 1777 /shared"


def test_token_authentication_is_on_everywhere(launcher: dict[str, Any]) -> None:
    starts = [*launcher["head_start_ray_commands"], *launcher["worker_start_ray_commands"]]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in started)
    for name, value in cluster.FOR_WORKERS.items():  # a job's workers have them from here alone
        assert all(f" {name}={value} " in command for command in started)
    assert "-e RAY_AUTH_MODE=token" in launcher["docker"]["run_options"]
    assert launcher["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_images_hold_the_ray_and_python_that_raysl_needs(launcher: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = next(line for line in project["dependencies"] if line.startswith("ray["))
    images = [launcher["docker"]["image"], launcher["available_node_types"]["gpu_spot"]["docker"]["worker_image"]]
    for image in images:
        version, python = re.fullmatch(r"rayproject/ray:(\d+\.\d+)\.\d+-py3(\d+)-\w+", image).groups()  # type: ignore[union-attr]
        assert f">={version}," in requirement
        assert int(python) >= 11
