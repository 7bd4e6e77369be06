"""KServe's own Python server with a tiny model, for `bench/gateway.py`; runs in an environment that has `kserve`.

kserve_server.py NAME HTTP_PORT GRPC_PORT: y = x @ weights, as in `front_testing.linear`.
"""

import logging
import sys

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]

logging.disable(logging.INFO)  # a line for each request costs, and nobody reads it here


class Tiny(Model):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.weights = np.add.outer(np.arange(4), np.arange(3)).astype(np.float32)
        self.ready = True

    def predict(self, payload: InferRequest, headers: object = None, response_headers: object = None) -> InferResponse:  # noqa: ARG002
        found = payload.inputs[0].as_numpy().astype(np.float32) @ self.weights
        output = InferOutput(name="y", shape=list(found.shape), datatype="FP32")
        output.set_data_from_numpy(found, binary_data=False)
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    name, http_port, grpc_port = sys.argv[1:]
    server = ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1, enable_latency_logging=False)
    server.start([Tiny(name)])
