"""Makes `twistd dynamo` known; imports nothing of the node itself."""

from twisted.application.service import ServiceMaker

dynamo = ServiceMaker(
    "Dynamo", "dynamo.tap", "One node of a leaderless, always-writable object store", "dynamo"
)
