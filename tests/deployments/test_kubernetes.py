"""The manifests of deployments/kubernetes: Kubernetes' schemas take them, what they name exists, and nothing in them is root."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from genai_core.config.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments/kubernetes"
SECRET = "genai"
NAME = re.compile(r"\$\((\w+)\)")


@cache
def objects() -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    texts = [(FOLDER / name).read_text() for name in kustomization["resources"]]
    return [found for text in texts for found in yaml.safe_load_all(text)]


def one(kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in objects() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def templates() -> dict[str, dict[str, Any]]:
    """Return the pod template of everything that makes pods; a group of the RayCluster is named ray-GROUP."""
    found = {
        each["metadata"]["name"]: each["spec"]["template"] for each in objects() if "template" in each.get("spec", {})
    }
    ray = one("RayCluster", "genai")["spec"]
    groups = [("head", ray["headGroupSpec"]), *((group["groupName"], group) for group in ray["workerGroupSpecs"])]
    return found | {f"ray-{name}": group["template"] for name, group in groups}


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield (name of the template, pod, its container); all of ours have one."""
    for name, template in templates().items():
        [container] = template["spec"]["containers"]
        yield name, template["spec"], container


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Return the names of a container's variables with their values, '' where a Secret has it."""
    found = {}
    for source in container.get("envFrom", []):
        found |= one("ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {each["name"]: each.get("value", "") for each in container.get("env", [])}


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    return services


BESIDE = {
    "postgres": "postgres",
    "prefect": "prefect",
    "mlflow": "mlflow",
    "worker": "worker",
    "ray-head": "ray",
    "ray-cpu": "ray-node",
    "ray-gpu": "ray-gpu",
}
"""The service of compose.yaml that a pod is the same as."""


def test_the_kustomization_has_every_file() -> None:
    named = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    assert named == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.skipif(
    not shutil.which("kubectl"), reason="no kubectl here: what it would build is read by the other tests"
)
def test_kubectl_builds_the_kustomization() -> None:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {(each["kind"], each["metadata"]["name"]) for each in built} == {
        (each["kind"], each["metadata"]["name"]) for each in objects()
    }
    assert {each["metadata"].get("namespace", "genai") for each in built} == {"genai"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {f"genai:{version}", f"genai-server:{version}", compose()["postgres"]["image"]}


def test_kubernetes_takes_every_manifest() -> None:
    """KubeRay's own kind has its pods checked: its other fields are in no schema of Kubernetes."""
    version = kubernetes_validate.latest_version()
    for each in objects():
        if each["kind"] != "RayCluster":
            kubernetes_validate.validate(each, version, strict=True)
    for name, template in templates().items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_validator_finds_a_field_that_does_not_exist() -> None:
    wrong = deepcopy(one("Deployment", "worker"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_every_pod_is_started_as_compose_starts_it() -> None:
    for name, _, container in containers():
        beside = compose()[BESIDE[name]]
        assert container["image"] == beside["image"], name
        if "command" in container:
            said, ours = beside["command"].split(), [NAME.sub(r"${\1}", word) for word in container["command"]]
            if name == "worker":
                assert (ours.pop(3), said.pop(3)) == ("kubernetes", "compose"), "the names of the workers"
                assert ours.pop() == "--with-healthcheck"
            assert [word.replace("${POSTGRES_HOST}", "postgres") for word in ours] == said
    targets = {each["image"]: each["build"]["target"] for each in compose().values() if "build" in each}
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert targets == {"genai": "worker", "genai-server": "server"} and {*targets.values()} < {*stages}


def test_every_pod_has_the_variables_that_compose_gives() -> None:
    """KubeRay adds those of Ray's token."""
    options = one("RayCluster", "genai")["spec"]["authOptions"]
    assert options == {"mode": "token", "secretName": SECRET}
    for name, _, container in containers():
        added = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} if name.startswith("ray-") else set()
        assert set(compose()[BESIDE[name]]["environment"]) <= set(environment(container)) | added, name


def test_every_variable_is_read_by_somebody() -> None:
    ours = {f"GENAI_{name.upper()}" for name in Settings.model_fields}
    shown = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (ROOT / "docs/operations.md").read_text()))
    known = ours | shown | {name for service in compose().values() for name in service.get("environment", {})}
    others = {
        "PGDATA",  # postgres' image
        "AWS_DEFAULT_REGION",  # boto3
        "PREFECT_SERVER_UI_STATIC_DIRECTORY",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
    }
    for name, _, container in containers():
        put_in = set(NAME.findall(str(container.get("command"))))
        assert put_in <= set(environment(container)), f"{name} puts in what it has not"
        above: set[str] = set()
        for each in container.get("env", []):
            assert set(NAME.findall(each.get("value", ""))) <= above, f"{name}: Kubernetes puts in what stands above"
            put_in |= set(NAME.findall(each.get("value", "")))
            above.add(each["name"])
        assert set(environment(container)) <= known | others | put_in, name


def test_the_libraries_know_the_variables_that_only_kubernetes_sets() -> None:
    from prefect.settings.models.server.ui import ServerUISettings
    from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR

    prefix = ServerUISettings.model_config["env_prefix"]
    assert "PREFECT_SERVER_UI_STATIC_DIRECTORY" in {f"{prefix}{name}".upper() for name in ServerUISettings.model_fields}
    assert WORKER_GROUP_START_TIMEOUT_S_ENV_VAR == "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def test_every_secret_and_setting_that_is_named_exists() -> None:
    lines = (FOLDER / "secret.env.example").read_text().splitlines()
    keys = dict(line.split("=") for line in lines if not line.startswith("#"))
    assert not any(keys.values()), "a secret is in the example"
    assert not [each for each in objects() if each["kind"] == "Secret"]
    used = {"auth_token"}  # the key of the Secret that KubeRay is told of
    for name, pod, container in containers():
        for source in (each["valueFrom"] for each in container.get("env", []) if "valueFrom" in each):
            if "secretKeyRef" in source:
                assert source["secretKeyRef"]["name"] == SECRET
                used.add(source["secretKeyRef"]["key"])
            else:
                asked = source["configMapKeyRef"]
                assert asked["key"] in one("ConfigMap", asked["name"])["data"]
        claims = [each["metadata"]["name"] for each in one("StatefulSet", "postgres")["spec"]["volumeClaimTemplates"]]
        volumes = {each["name"]: each for each in pod["volumes"]} | {
            claim: {} for claim in claims if name == "postgres"
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes), name
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                one("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            if "configMap" in volume:
                one("ConfigMap", volume["configMap"]["name"])
    assert used == set(keys)
    assert one("ConfigMap", "databases")["data"]["databases.sql"] == (ROOT / "docker/databases.sql").read_text()
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "deployments/kubernetes/secret.env" in ignored


def test_every_address_is_that_of_a_service() -> None:
    served = {}
    for each in objects():
        if each["kind"] == "Service":
            [port] = each["spec"]["ports"]
            template = templates()[each["metadata"]["name"]]
            assert each["spec"]["selector"] == template["metadata"]["labels"]
            ports = template["spec"]["containers"][0]["ports"]
            assert {"name": port.get("targetPort", port["name"]), "containerPort": port["port"]} in ports
            served[each["metadata"]["name"]] = port["port"]
    head = {port["name"]: port["containerPort"] for _, _, c in containers() for port in c.get("ports", [])}
    served["genai-head-svc"] = head["dashboard"]  # KubeRay names it after the cluster
    asked = set(re.findall(r"http://([\w-]+):(\d+)", str([environment(c) for _, _, c in containers()])))
    assert asked == {(name, str(served[name])) for name in ("prefect", "mlflow", "genai-head-svc")}
    assert one("ConfigMap", "servers")["data"]["POSTGRES_HOST"] in served


def test_probes_ask_ports_that_are_there() -> None:
    for name, _, container in containers():
        probes = [container[kind] for kind in container if kind.endswith("Probe")]
        assert probes or name.startswith("ray-"), f"{name} has none, and nobody adds one"
        ports = {port["name"] for port in container.get("ports", [])}
        assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= ports
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_nothing_is_root_or_can_become_it() -> None:
    """What Kubernetes' profile `restricted` asks, which the namespace enforces, and a root file system that is only read."""
    [user] = re.findall(r"useradd --uid (\d+)", (ROOT / "docker/Dockerfile").read_text())
    assert one("Namespace", "genai")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    options = one("RayCluster", "genai")["spec"]["autoscalerOptions"]
    for name, pod, container in containers():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["runAsUser"] == context["runAsGroup"] == (999 if name == "postgres" else int(user))
        assert pod["enableServiceLinks"] is False
        assert not set(pod) & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        assert all(not {"hostPath"} & set(volume) for volume in pod["volumes"])
        assert pod.get("automountServiceAccountToken") is (None if name == "ray-head" else False), name
        for confined in (container["securityContext"], options["securityContext"]):
            assert confined == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_only_the_worker_and_ray_itself_reach_ray() -> None:
    def reached(labels: dict[str, str]) -> list[Any]:
        policies = [each["spec"] for each in objects() if each["kind"] == "NetworkPolicy"]
        named = [each for each in policies if each["podSelector"]]
        return [
            rule
            for each in named
            if each["podSelector"]["matchLabels"].items() <= labels.items()
            for rule in each["ingress"]
        ]

    assert one("NetworkPolicy", "nobody-to-anybody")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ray = {"podSelector": {"matchLabels": {"ray.io/cluster": "genai"}}}
    worker = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "worker"}}}
    assert reached({"ray.io/cluster": "genai", "ray.io/node-type": "worker"}) == [{"from": [ray]}]
    assert reached({"ray.io/cluster": "genai", "ray.io/node-type": "head"}) == [
        {"from": [worker], "ports": [{"port": 8265}]},
        {"from": [ray]},
    ]
    for name in ("postgres", "prefect", "mlflow"):
        template = templates()[name]
        [rule] = reached(template["metadata"]["labels"])
        assert rule["ports"] == [{"port": template["spec"]["containers"][0]["ports"][0]["containerPort"]}]


def test_the_ray_of_the_cluster_is_ours_and_its_nodes_share_a_folder() -> None:
    """A driver hands its workers paths below GENAI_SCRATCH: on another machine they must be the same files."""
    ray = one("RayCluster", "genai")["spec"]
    assert f"ray=={ray['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert one("PersistentVolumeClaim", "scratch")["spec"]["accessModes"] == ["ReadWriteMany"]
    for name, pod, container in containers():
        if name.startswith("ray-"):
            shared = {"name": "scratch", "mountPath": environment(container)["GENAI_SCRATCH"]}
            assert shared in container["volumeMounts"]
            assert {"name": "scratch", "persistentVolumeClaim": {"claimName": "scratch"}} in pod["volumes"]
    for group in ray["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    [gpu] = [group for group in ray["workerGroupSpecs"] if group["groupName"] == "gpu"]
    assert (
        gpu["minReplicas"] == 0
        and gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    )
