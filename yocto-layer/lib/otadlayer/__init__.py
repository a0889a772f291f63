"""What the layer's classes and recipes compute: plain Python, so that it is tested without a build."""

# BitBake imports these by itself and makes them part of the signatures of the tasks that call them.
BBIMPORTS = ["variables", "environment", "release", "signing"]
