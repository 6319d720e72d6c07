"""Stands in for TorchServe's Python package: as much of its worker as the front door sees (docs of the protocol: src/rpc/ts_protocol.h)."""
