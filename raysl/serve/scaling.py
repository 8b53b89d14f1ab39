"""When replicas are added and removed: by the requests in flight that the replicas themselves count.

Ray Serve counts what its proxy hands out and would miss what replicas receive on their own port.
"""

import math
from typing import Any, ClassVar


class ByRequestsInFlight:
    """Ray Serve autoscaling policy: so many replicas that each has `target` requests in flight.

    Ray applies the bounds and the delays.
    """

    METRIC: ClassVar[str] = "in_flight"

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        in_flight = (context.aggregated_metrics or {}).get(self.METRIC, {})
        return max(1, math.ceil(sum(in_flight.values()) / self.target)), {}
