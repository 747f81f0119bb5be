"""A release in an MLflow registry: a run with its metrics and lineage, and a version of its model.

Needs ``mlflow`` or ``mlflow-skinny`` (``runout[mlflow]``). The models of a class are versions of
one registered model, named as the class; the alias ``handed_out`` stands where the fleet's does.
"""

import msgspec
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from contract.errors import RunoutError
from server.registry import Registry

ALIAS = "handed_out"


def export(registry: Registry, version: int, uri: str) -> str:
    """Register a version; returns MLflow's number of it, the one it has if it is there already.

    Raises:
        ContractError: there is no such version, or it is damaged.
        RunoutError: MLflow cannot be reached, or refuses.
    """
    release = registry.get(version)
    name = registry.asset_class
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        known = _known(client, name, release.digest)
        if known is None:
            known = _register(client, registry, version)
        if registry.pointed() == version:
            client.set_registered_model_alias(name, ALIAS, known)
    except MlflowException as error:
        raise RunoutError(f"MLflow at {uri}: {error.message}") from error
    return known


def _known(client: MlflowClient, name: str, digest: str) -> str | None:
    found = client.search_model_versions(f"name = '{_quoted(name)}'")
    return next((str(one.version) for one in found if one.tags.get("digest") == digest), None)


def _quoted(name: str) -> str:
    return name.replace("'", "")


def _register(client: MlflowClient, registry: Registry, version: int) -> str:
    release = registry.get(version)
    manifest = release.manifest
    name = registry.asset_class
    tags = {
        "version": str(version),
        "parent": str(manifest.parent),
        "digest": release.digest,
        "spec_digest": manifest.asset_class.digest(),
        "signature": release.signature,
        "rul_model": manifest.rul_model,
        "contributors": str(len(manifest.contributors)),
    }
    experiment = client.get_experiment_by_name("runout")
    number = experiment.experiment_id if experiment else client.create_experiment("runout")
    started = client.create_run(
        number,
        start_time=manifest.created_ns // 1_000_000,
        tags=tags,
        run_name=f"{name} v{version}",
    )
    run = started.info.run_id
    for key, value in manifest.metrics.items():
        client.log_metric(run, key, value, timestamp=manifest.created_ns // 1_000_000)
    client.log_text(
        run, msgspec.json.format(msgspec.json.encode(manifest)).decode(), "manifest.json"
    )
    client.log_artifact(run, str(registry.path(version)), "release")
    client.set_terminated(run)
    if not client.search_registered_models(f"name = '{_quoted(name)}'"):
        client.create_registered_model(name, description=f"Runout's models of the class {name}")
    made = client.create_model_version(
        name, source=f"{started.info.artifact_uri}/release", run_id=run, tags=tags
    )
    return str(made.version)
