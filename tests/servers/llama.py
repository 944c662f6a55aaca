"""A real model behind a real OpenAI-compatible server: SmolLM2-135M in llama.cpp, on loopback.

``python llama.py MODEL.gguf`` prints the server's address and serves until it is killed. A process of its own, because
an abort in native code would end the test run.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.model_alias = "smollm2"
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 2
    params.cpuparams_batch.n_threads = 2
    params.warmup = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
