"""Figures of a running server, in Prometheus's text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """One server's figures."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self.requests = Counter(
            "pops_requests", "Requests that were answered.", ("method", "route", "status"), registry=self._all
        )
        self.seconds = Histogram(
            "pops_request_seconds", "Seconds to the beginning of an answer.", ("route",), registry=self._all,
            buckets=_SECONDS,
        )  # fmt: skip
        self.jobs = Counter("pops_jobs", "Jobs by what became of them.", ("status",), registry=self._all)
        self.job_seconds = Histogram(
            "pops_job_seconds", "Seconds that a job ran.", registry=self._all, buckets=_SECONDS
        )
        self.deaths = Counter("pops_worker_deaths", "Workers that ended by themselves.", ("model",), registry=self._all)
        self.waiting = Gauge("pops_jobs_waiting", "Jobs that wait.", registry=self._all)
        self.listeners = Gauge("pops_event_streams", "Event streams that are open.", registry=self._all)
        self.tasks = Gauge("pops_tasks", "Tasks of the server's event loop.", registry=self._all)
        self.disk = Gauge("pops_disk_bytes", "Bytes of photos and images.", registry=self._all)

    def text(self) -> bytes:
        """Returns all figures."""
        return generate_latest(self._all)
