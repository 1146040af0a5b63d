"""Probe of the judge's servers before a run starts."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

from codedance_verl.grading.judge.config import JudgeConfig

PROBE_SECONDS = 10.0
MAX_LIST_BYTES = 1 << 20


def unreachable(config: JudgeConfig) -> list[str]:
    """Lines, one for each endpoint that does not answer or does not serve the model, with what is wrong.

    Raises:
        UserError: the key cannot be sent.
    """
    return [f"{url}: {fault}" for url in config.endpoints if (fault := _fault(url, config))]


def _fault(url: str, config: JudgeConfig) -> str:
    """Fault of an endpoint; empty where it lists the model, or lists none."""
    request = urllib.request.Request(f"{url}/models", headers=config.headers())
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as response:
            listed = json.loads(response.read(MAX_LIST_BYTES))
        models = [str(model["id"]) for model in listed["data"]]
    except urllib.error.HTTPError as error:
        # some services answer chat requests alone
        return f"HTTP {error.code}; check grading.judge.api_key_env" if error.code in (401, 403) else ""
    except (urllib.error.URLError, OSError) as error:
        return f"does not answer ({getattr(error, 'reason', error)}); start it or correct its address"
    except (http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        return "is no OpenAI-compatible server; its address ends in /v1 as a rule"
    if models and config.model not in models:
        return f"serves {', '.join(models[:5])}; set grading.judge.model to one of them"
    return ""
