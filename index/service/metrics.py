"""What Prometheus reads; a registry of its own for each service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Counters by the route's template, never by the path as it came: that would be without end."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        here = self.registry
        self.requests = Counter("mmfilter_requests", "Requests answered", ["route", "status"], registry=here)
        self.seconds = Histogram(
            "mmfilter_request_seconds", "Seconds to the answer", ["route"], buckets=SECONDS, registry=here
        )
        self.shed = Counter("mmfilter_shed", "Requests refused because too many were in work", registry=here)
        self.working = Gauge("mmfilter_working", "Requests in work", registry=here)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.batch = Histogram("mmfilter_search_batch", "Queries searched as one", buckets=sizes, registry=here)
        self.refresh_failures = Counter(
            "mmfilter_refresh_failures", "Changes on disk that could not be read", registry=here
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
