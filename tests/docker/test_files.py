"""Images, services and examples against the rules of their formats, and against our own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docker.files import COMPOSE, DOCKER, ROOT, STAGES, TARGETS, compose, lineage, tool

from dlframe.cli import parse
from dlframe.config import load

CUDA = DOCKER / "compose.cuda.yaml"
SCRIPTS = sorted(DOCKER.glob("*.sh"))
SERVICES = compose()["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]


# --- Dockerfile


def test_hadolint_finds_nothing():
    done = tool("hadolint", "--failure-threshold=style", "--disable-ignore-pragma", DOCKER / "Dockerfile")
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_hadolint_finds_something(tmp_path):
    """The tool does check: a file with three usual mistakes."""
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN pip install torch\nRUN cd /tmp && ls\n")
    assert {"DL3007", "DL3013", "DL3042", "DL3003"} <= set(
        re.findall(r"DL\d+", tool("hadolint", tmp_path / "Dockerfile").stdout)
    )


def test_base_images_have_an_exact_version():
    bases = {base for base, _ in STAGES.values()} - set(STAGES)
    assert bases == {"python:3.11.15-slim-bookworm"}
    images = {service["image"] for service in SERVICES.values() if "build" not in service}
    assert all(re.fullmatch(r"[\w/-]+:\d+\.\d+[\w.-]*", image) for image in images), images


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_small_and_its_user_is_not_root(target):
    instructions = lineage(target)
    assert [i.value for i in instructions if i.name == "USER"] == ["$UID"]
    last = [i for i in instructions if i.name in ("USER", "RUN")][-1]
    assert last.name == "USER", "root runs something after USER"
    runs = [i.value for i in instructions if i.name == "RUN"]
    assert not [run for run in runs if "pip" in run or "apt" in run], "what builds is not in the image"
    assert not [i for i in instructions if i.name == "ADD"]
    for i in instructions:
        if i.name in ("CMD", "ENTRYPOINT"):
            assert json.loads(i.value), "as a list, no shell"


@pytest.mark.parametrize("stage", STAGES)
def test_pip_installs_what_constraints_pin_and_keeps_no_cache(stage):
    environment = " ".join(i.value for i in lineage(stage) if i.name == "ENV")
    for run in (i.value for i in STAGES[stage][1] if i.name == "RUN" and "pip install" in i.value):
        assert "-c constraints.txt" in run or "--no-deps /wheel/*.whl" in run
        assert "PIP_NO_CACHE_DIR=1" in environment


@pytest.mark.parametrize("stage", STAGES)
def test_no_secret_and_no_address_is_in_an_image(stage):
    for i in STAGES[stage][1]:
        assert i.name not in ("ENV", "ARG") or not re.search("password|secret|token|key", i.value, re.IGNORECASE)
        assert not re.search(r"https?://", i.value)
    assert "ARG TORCH_INDEX=" in (DOCKER / "Dockerfile").read_text()


@pytest.mark.parametrize(("target", "command"), [("cpu", ["model=cnn"]), ("cuda", ["model=cnn", "trainer=gpu"])])
def test_the_command_of_the_readme_is_the_default(target, command):
    (said,) = (json.loads(i.value) for i in lineage(target) if i.name == "CMD")
    assert said == ["python", "-m", "dlframe", *command]
    assert " ".join(said[:4]) in (ROOT / "README.md").read_text()


def test_the_context_holds_what_is_copied_and_nothing_else():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied: list[str] = []
    for _, instructions in STAGES.values():
        for i in instructions:
            if i.name == "COPY" and "--from" not in i.value:
                copied += [part for part in i.value.split() if not part.startswith("--")][:-1]
    assert sorted(set(copied)) == sorted(allowed)
    assert all((ROOT / name).exists() for name in allowed)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_requirements_are_those_of_the_project():
    done = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", "server"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    packages = [line.split(">")[0].split("=")[0] for line in done.stdout.splitlines()]
    assert packages == ["boto3", "mlflow[auth]", "psycopg[binary]"]
    unknown = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", "servers"], cwd=ROOT, capture_output=True, check=False
    )
    assert unknown.returncode == 1


def test_constraints_pin_every_requirement():
    done = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", "dlframe", "postgresql", "ray", "server"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = {re.split(r"[\[<>=; ]", line)[0].lower() for line in done.stdout.splitlines()}
    assert wanted <= pinned


# --- compose


@pytest.mark.parametrize("path", [COMPOSE, CUDA], ids=lambda path: path.name)
def test_a_compose_file_fits_the_published_schema(path):
    """The schema of the Compose specification comes with check-jsonschema."""
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [("healthcheck:", "healthchecks:"), ("profiles: [sweep]", "profiles: sweep"), ("service_healthy", "healthy")],
)
def test_the_schema_finds_mistakes(old, new, tmp_path):
    text = COMPOSE.read_text()
    assert old in text
    (tmp_path / "compose.yaml").write_text(text.replace(old, new, 1))
    assert tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml").returncode == 1


def test_what_the_services_name_exists():
    """References that the schema does not follow."""
    whole = compose()
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}, which has no check"
        assert {*service.get("secrets", [])} <= whole["secrets"].keys(), name
        assert {config["source"] for config in service.get("configs", [])} <= whole["configs"].keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in whole["volumes"] or (DOCKER / source).is_file(), f"{name}: {source}"
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == whole["secrets"].keys()
    assert {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v[0] != "."} == whole["volumes"].keys()


def test_nothing_waits_for_itself():
    order: list[str] = []
    left = {name: {*service.get("depends_on", {})} for name, service in SERVICES.items()}
    while left:
        ready = [name for name, others in left.items() if others <= {*order}]
        assert ready, f"a circle: {left}"
        order += ready
        for name in ready:
            del left[name]


def test_ports_are_open_on_this_machine_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000", "127.0.0.1:8265:8265"]


def test_secrets_are_files():
    """No password is written down, nor passed by the environment: that names files in /run/secrets."""
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", variable):
                assert variable.endswith(("_FILE", "_PATH")), variable
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"
        text = yaml.safe_dump(service)
        assert {*re.findall(r"/run/secrets/(\w+)", text)} <= {*service.get("secrets", [])}, name
        assert not re.search(r"://[^/\s]+:[^/\s@]+@", text), f"{name}: a password in an address"


@pytest.mark.parametrize("name", OWN)
def test_own_services_have_no_rights_to_spare(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["build"]["target"] in TARGETS
    assert "user" not in service, "that of the image"
    assert "privileged" not in service


def commands(text: str) -> list[list[str]]:
    """The command lines of dlframe in a script or a service."""
    joined = re.sub(r"\\\n", " ", text)
    joined = re.sub(r'"\$@".*', "", joined).replace("$storage", "postgresql://a@b/c").replace("$tracking", "http://a:5000")
    return [shlex.split(line)[1:] for line in re.findall(r"\bdlframe (?:sweep )?\w+=.*", joined)]


def trainings() -> list[tuple[str, list[str]]]:
    """Where a command line is written -> its arguments."""
    found: list[tuple[str, list[str]]] = []
    for path in (COMPOSE, CUDA):
        for name, service in compose(path.name)["services"].items():
            words = service.get("command", [])
            if words[:1] == ["dlframe"]:
                found.append((f"{path.name} {name}", words[1:]))
            elif words[:2] == ["sh", "-c"]:
                found += [(f"{path.name} {name}", arguments) for arguments in commands(words[2])]
    job = list(yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text()))[1]
    found += [("kuberay.yaml", arguments) for arguments in commands(job["spec"]["entrypoint"])]
    found += [("slurm.sh", arguments) for arguments in commands((DOCKER / "slurm.sh").read_text())]
    return found


@pytest.mark.parametrize(("place", "arguments"), trainings(), ids=[place for place, _ in trainings()])
def test_the_command_lines_are_ours(place, arguments, monkeypatch, tmp_path):
    """Each is a command; its options of training are a config. Those of sweeps are checked where a sweep is started."""
    monkeypatch.chdir(tmp_path)
    command, rest = parse(arguments)
    own = ("trials=", "storage=", "executor", "optimizer.lr=tag", "trainer=gpu")
    load([text for text in rest if not text.startswith(own)])
    assert command.name == ("sweep" if "sweep" in place or place[0] in "ks" else "train")


def test_every_place_of_a_command_line_was_found():
    assert len(trainings()) == 6


def test_the_override_for_gpus_changes_services_that_exist():
    gpu = compose(CUDA.name)["services"]
    assert gpu.keys() <= SERVICES.keys()
    assert {name for name, service in SERVICES.items() if service.get("image") == "dlframe:cpu"} == gpu.keys()
    assert all(service["build"]["target"] == "cuda" for service in gpu.values())


# --- scripts


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    done = tool("shellcheck", "--severity=style", path)
    assert done.stdout == ""
    assert done.returncode == 0
    assert os.access(path, os.X_OK)
    shell = path.read_text().split("\n", 1)[0].removeprefix("#!")
    if shutil.which(shell):
        subprocess.run([shell, "-n", path], check=True)


def test_secrets_are_made_once_and_for_nobody_else(tmp_path):
    shutil.copy(DOCKER / "secrets.sh", tmp_path)
    subprocess.run([tmp_path / "secrets.sh"], check=True)
    secrets = tmp_path / "secrets"
    first = {path.name: path.read_text() for path in secrets.iterdir()}
    assert first.keys() == compose()["secrets"].keys()
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert len(set(first.values())) == len(first), "no two are equal"
    assert all(re.fullmatch("[0-9a-f]{48}", value) for name, value in first.items() if name != "s3_identities")
    (identity,) = json.loads(first["s3_identities"])["identities"]
    assert identity["credentials"] == [{"accessKey": "mlflow", "secretKey": first["s3_secret_key"]}]
    (secrets / "ray_token").unlink()
    subprocess.run([tmp_path / "secrets.sh"], check=True)
    second = {path.name: path.read_text() for path in secrets.iterdir()}
    assert second["ray_token"] != first["ray_token"]
    assert {**second, "ray_token": ""} == {**first, "ray_token": ""}


def with_secrets(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DOCKER / "with-secrets.sh", *command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_secret_reaches_the_command_only(tmp_path):
    value = "a 'b' \"c\" $d `e` \\f é"
    (tmp_path / "secret").write_text(value + "\n")
    code = "import os; print(os.environ['PGPASSWORD'], 'MLFLOW_TRACKING_PASSWORD' in os.environ)"
    done = with_secrets(sys.executable, "-c", code, PGPASSWORD_FILE=str(tmp_path / "secret"), PYTHONUTF8="1")
    assert done.stdout == f"{value} False\n"
    assert with_secrets("sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("content", [None, ""])
def test_a_secret_that_is_not_there(content: str | None, tmp_path: Path):
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    done = with_secrets("echo", "never", PGPASSWORD_FILE=str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: PGPASSWORD_FILE: must be a file with the secret. Received: {path}. Create the secrets: docker/secrets.sh\n"
    )


def test_every_secret_of_the_environment_is_read():
    known = re.search(r"for name in (.*); do", (DOCKER / "with-secrets.sh").read_text())
    assert known
    wanted = {key for name in OWN for key in SERVICES[name]["environment"] if key.endswith("_FILE")}
    assert wanted == {f"{name}_FILE" for name in known[1].split()}


def test_the_slurm_script_asks_for_what_sbatch_knows():
    text = (DOCKER / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert options["requeue"] == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d", options["time"])
    assert text.index("#SBATCH") < text.index("set -euo pipefail"), "sbatch reads options before the first command only"


# --- KubeRay


TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
PARAMETERS = {"type": "object", "additionalProperties": TEXT}


def closed(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


NAMED = closed("name key", name=TEXT, key=TEXT)
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(m|[KMGT]i)?$"}}
PROBE = closed(
    "exec",
    exec=closed("command", command={"type": "array", "items": TEXT}),
    initialDelaySeconds=COUNT,
    timeoutSeconds=COUNT,
    periodSeconds=COUNT,
    failureThreshold=COUNT,
)
CONTAINER = closed(
    "name image",
    name=TEXT,
    image={"type": "string", "pattern": r":[\w.-]+$"},
    env={
        "type": "array",
        "items": {
            "oneOf": [
                closed("name value", name=TEXT, value=TEXT),
                closed("name valueFrom", name=TEXT, valueFrom=closed("secretKeyRef", secretKeyRef=NAMED)),
            ]
        },
    },
    livenessProbe=PROBE,
    readinessProbe=PROBE,
    resources=closed("requests limits", requests=QUANTITIES, limits=QUANTITIES),
    securityContext=closed(
        "",
        allowPrivilegeEscalation={"const": False},
        capabilities=closed("drop", drop={"const": ["ALL"]}),
    ),
    volumeMounts={"type": "array", "items": closed("name mountPath", name=TEXT, mountPath=TEXT)},
)
POD = closed(
    "containers",
    securityContext=closed("runAsNonRoot", runAsNonRoot={"const": True}, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT),
    containers={"type": "array", "items": CONTAINER, "minItems": 1},
    volumes={
        "type": "array",
        "items": closed("name", name=TEXT, persistentVolumeClaim=closed("claimName", claimName=TEXT)),
    },
)
TEMPLATE = closed("spec", spec=POD)
RAY_JOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed("name", name=TEXT),
    spec=closed(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        backoffLimit=COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=closed(
            "headGroupSpec workerGroupSpecs rayVersion",
            rayVersion=TEXT,
            authOptions=closed("mode", mode={"enum": ["disabled", "token"]}),
            headGroupSpec=closed("rayStartParams template", rayStartParams=PARAMETERS, template=TEMPLATE),
            workerGroupSpecs={
                "type": "array",
                "items": closed(
                    "groupName minReplicas maxReplicas rayStartParams template",
                    groupName=TEXT,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    rayStartParams=PARAMETERS,
                    template=TEMPLATE,
                ),
            },
        ),
    ),
)
"""The part of KubeRay's API (ray.io/v1) and of pods that the example uses; no package ships KubeRay's own schema."""


def test_the_rayjob_has_fields_of_kuberay():
    jsonschema = pytest.importorskip("jsonschema")
    claim, job = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(RAY_JOB)
    jsonschema.Draft202012Validator(RAY_JOB).validate(job)
    pods = [job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    secrets = compose()["secrets"].keys()
    for pod in pods:
        spec = pod["template"]["spec"]
        (volume,) = spec["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (container,) = spec["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"]}
        references = [e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e]
        assert {reference["key"] for reference in references} <= secrets, "what docker/secrets.sh makes"
        assert not [e for e in container["env"] if "value" in e and re.search("PASSWORD|TOKEN", e["name"])]
        compile(container["livenessProbe"]["exec"]["command"][2], "probe", "exec")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_the_rayjob_has_the_pinned_version_of_ray():
    _, job = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray=="))
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]
