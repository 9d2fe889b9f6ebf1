"""The project's own OpenAI-compatible streaming server, with two backs: OpenVINO GenAI, and a paced one without a model.

Runs in a foreign interpreter (`python server/__main__.py openvino ...`) that knows nothing of this project: standard library here,
what the back needs is imported by the back, and nothing is imported from `profiler`.

One thread does everything. OpenVINO's `step()` holds the GIL, so a second thread could not answer anyway; instead the step loop and
the sockets take turns: step, write each request's new token, look once at the sockets.
"""
