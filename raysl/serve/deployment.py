"""The Ray Serve deployment: replicas that infer where they receive, so that a request crosses no second process."""

import ray
from ray import serve
from ray.serve import Application

from raysl.serve.config import ServeConfig
from raysl.serve.http import HttpApp
from raysl.serve.listener import Listener, drain_seconds
from raysl.serve.port import borrow
from raysl.serve.scaling import ByRequestsInFlight
from raysl.serve.service import Service, Settings

DEPLOYMENT = "replica"
MAX_START_ATTEMPTS = 3
LOOK_BACK_SECONDS = 11
"""Time whose requests in flight decide on replicas; Ray wants more of it than the 10 s between two reports of a replica."""
CLOSING_SECONDS = 5
"""For a replica to write its records once the requests in flight are answered."""


@serve.ingress()
class Replica:
    """One process with the whole model.

    Listens itself on the shared port whose `port_path` it is given; else Ray Serve's proxy hands it requests.
    """

    async def __init__(self, settings: Settings, port_path: str | None) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        writer = serve.get_replica_context().replica_id.unique_id
        self.service = Service(settings, writer)
        self.service.warm_up()
        self.http = HttpApp(self.service)
        self.listener = Listener(self.http, borrow(port_path)) if port_path else None
        if self.listener is not None:
            await self.listener.start()

    def __serve_build_asgi_app__(self) -> HttpApp:
        return self.http

    async def check_health(self) -> None:
        """Runs on the loop that answers requests, so a loop that is stuck is found too; Ray Serve then replaces us."""
        self.service.check()
        if self.listener is not None:
            self.listener.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {ByRequestsInFlight.METRIC: float(self.http.in_flight)}

    async def __del__(self) -> None:
        if not hasattr(self, "http"):  # the constructor failed
            return
        if self.listener is not None:
            await self.listener.stop()
        self.service.close()


def application(settings: Settings, port_path: str | None, local: bool) -> Application:
    """The deployment with the options that ServeConfig asks for."""
    config = settings.config
    scaling = {
        "min_replicas": config.min_replicas, "max_replicas": config.max_replicas,
        "policy": {"policy_function": ByRequestsInFlight, "policy_kwargs": {"target": config.target_ongoing_requests}},
        "look_back_period_s": LOOK_BACK_SECONDS, "upscale_delay_s": 5, "downscale_delay_s": 120,
    }  # fmt: skip
    fixed = config.min_replicas == config.max_replicas
    deployment = serve.deployment(
        name=DEPLOYMENT, ray_actor_options={"num_cpus": config.cpus_per_replica},
        max_ongoing_requests=config.max_ongoing_requests, max_queued_requests=config.max_queued_requests,
        backpressure_config={"status_code": 503, "retry_after_s": 1.0}, max_surge_percent=_surge_percent(settings, local),
        health_check_period_s=5, health_check_timeout_s=15, graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=stopping_seconds(config), max_constructor_retry_count=MAX_START_ATTEMPTS,
        logging_config={"enable_access_log": False},
        **({"num_replicas": config.min_replicas} if fixed else {"autoscaling_config": scaling}),
    )  # fmt: skip
    return deployment(Replica).bind(settings, port_path)


def stopping_seconds(config: ServeConfig) -> int:
    """How long a replica with requests in flight may take to stop; one without takes a second."""
    return drain_seconds(config.request_timeout_s) + CLOSING_SECONDS


def _surge_percent(settings: Settings, local: bool) -> int:
    """100: the new version runs before the old one goes. 0 where a local cluster has no core left for both."""
    config = settings.config
    spare = ray.cluster_resources().get("CPU", 0.0) - config.max_replicas * config.cpus_per_replica
    return 100 if not local or spare >= config.cpus_per_replica else 0
