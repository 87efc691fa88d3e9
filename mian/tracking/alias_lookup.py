"""Which version an alias of a tracking server is at, by one HTTP request and without MLflow."""

from __future__ import annotations

from collections.abc import Mapping

LOOKUP_SECONDS = 10.0
_PATH = "/api/2.0/mlflow/registered-models/alias"


class LookupFailedError(RuntimeError):
    """The tracking server does not answer, or not as one does."""


class UnknownModelError(LookupError):
    """The tracking server answers, and has no such model or alias."""


def look_up_version(tracking_uri: str, name: str, alias: str, environment: Mapping[str, str]) -> str:
    """The number of a version.

    Args:
        tracking_uri: address of the tracking server, ``http`` or ``https``.
        name: of the registered model.
        alias: of the version.
        environment: MLflow's variables for a token, user and password, and certificates.

    Raises:
        LookupFailedError: the server does not answer.
        UnknownModelError: it has no such model or alias.
    """
    import requests  # takes 17 MB, which a server of a folder does without

    token = environment.get("MLFLOW_TRACKING_TOKEN")
    user = environment.get("MLFLOW_TRACKING_USERNAME")
    verify: bool | str = environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        verify = False
    try:
        answer = requests.get(
            tracking_uri.rstrip("/") + _PATH,
            params={"name": name, "alias": alias},
            headers={"Authorization": f"Bearer {token}"} if token else None,
            auth=(user, environment.get("MLFLOW_TRACKING_PASSWORD", "")) if user and not token else None,
            cert=environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
            verify=verify,
            timeout=LOOKUP_SECONDS,
        )
        document = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise LookupFailedError(f"the tracking server does not answer: {error}") from error
    if not isinstance(document, dict):
        raise LookupFailedError("the tracking server answers as none does")
    if answer.status_code == requests.codes.ok:
        try:
            return str(document["model_version"]["version"])
        except (KeyError, TypeError) as error:
            raise LookupFailedError("the tracking server answers as none does") from error
    if document.get("error_code") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        raise UnknownModelError(document.get("message", "no such model or alias"))
    raise LookupFailedError(f"the tracking server answers {answer.status_code}: {document.get('message', '')}")
