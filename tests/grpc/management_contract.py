"""What TorchServe's management API answers, as one table: the same calls in the same order over REST and over gRPC.

A row: what it shows, the call, its parameters, the status of REST, the code of gRPC, and words of the answer.
A code of None: gRPC has no words for this call, because 0 is "not given" there and a number is a number.
"""

OK, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, INTERNAL = 0, 3, 5, 6, 9, 13

# Folders of the model store: name, handler of the manifest ("" = none, so the native one), version.
FOLDERS = (("native", "", "1.0"), ("native-2", "", "2.0"), ("python", "service.py:handle", "1.0"))

CONTRACT = (
    # Registering.
    ("no url", "register", {}, 400, INVALID_ARGUMENT, "url is required"),
    ("no url but a name", "register", {"model_name": "x"}, 400, INVALID_ARGUMENT, "url is required"),
    ("an empty url", "register", {"url": "", "model_name": "x"}, 404, None, "empty url"),
    ("a relative url", "register", {"url": "../native"}, 404, NOT_FOUND, "Relative path is not allowed in url: "),
    ("a url that was not allowed", "register", {"url": "http://127.0.0.1:1/x.mar"}, 404, NOT_FOUND,
     "Given URL http://127.0.0.1:1/x.mar does not match any allowed URL(s)"),
    ("a file that was not allowed", "register", {"url": "file:///etc/passwd"}, 404, NOT_FOUND, "does not match any allowed URL(s)"),
    ("a folder that is not there", "register", {"url": "missing"}, 404, NOT_FOUND, "Model not found at: missing"),
    ("a runtime that is none", "register", {"url": "native", "runtime": "python4"}, 400, INVALID_ARGUMENT, "Invalid RuntimeType value: python4"),
    ("a name that is none", "register", {"url": "native", "model_name": "a/b"}, 400, INVALID_ARGUMENT, "model name"),
    ("no initial workers", "register", {"url": "native", "model_name": "m"}, 200, OK,
     'Model "m" Version: 1.0 registered with 0 initial workers. Use scale workers API to add workers for the model.'),
    ("the same again", "register", {"url": "native", "model_name": "m"}, 409, ALREADY_EXISTS, "already registered"),
    ("a second version", "register", {"url": "native-2", "model_name": "m"}, 200, OK, 'Model "m" Version: 2.0 registered'),
    # Describing and listing.
    ("the default version", "describe", {"model_name": "m"}, 200, OK, '"modelVersion": "1.0"'),
    ("a version", "describe", {"model_name": "m", "model_version": "2.0"}, 200, OK, '"modelVersion": "2.0"'),
    ("all versions", "describe", {"model_name": "m", "model_version": "all"}, 200, OK, '"modelVersion": "2.0"'),
    ("a version that is not there", "describe", {"model_name": "m", "model_version": "0.0"}, 404, NOT_FOUND, "Model version: 0.0"),
    ("a model that is not there", "describe", {"model_name": "nobody"}, 404, NOT_FOUND, "Model not found: nobody"),
    ("the list", "list", {}, 200, OK, '"modelName": "m"'),
    ("a page", "list", {"limit": 1}, 200, OK, '"modelName": "m"'),
    ("a negative page", "list", {"limit": -1, "next_page_token": -1}, 200, OK, '"modelName": "m"'),
    ("a page after the last", "list", {"next_page_token": 12}, 200, OK, '"models": []'),
    ("a page of nonsense", "list", {"limit": "x", "next_page_token": ""}, 200, OK, '"modelName": "m"'),
    # The default version.
    ("another default", "set_default", {"model_name": "m", "model_version": "2.0"}, 200, OK, 'Default version successfully updated for model "m" to "2.0"'),
    ("a default that is not there", "set_default", {"model_name": "m", "model_version": "0.0"}, 404, NOT_FOUND, "Model version: 0.0"),
    ("a default of nobody", "set_default", {"model_name": "nobody", "model_version": "1.0"}, 404, NOT_FOUND, "Model not found: nobody"),
    # Scaling.
    ("scaling in time", "scale", {"model_name": "m", "min_worker": 1, "synchronous": True}, 200, OK, "Workers scaled to 1 for model: m"),
    ("scaling a version", "scale", {"model_name": "m", "model_version": "1.0", "min_worker": 1, "synchronous": True}, 200, OK,
     "Workers scaled to 1 for model: m, version: 1.0"),
    ("scaling at once", "scale", {"model_name": "m", "min_worker": 1}, 202, OK, "Processing worker updates..."),
    ("a synchronous that is no boolean", "scale", {"model_name": "m", "min_worker": 1, "synchronous": "nan"}, 202, None, "Processing worker updates..."),
    ("a number that is none", "scale", {"model_name": "m", "min_worker": "nan"}, 202, None, "Processing worker updates..."),
    ("no number", "scale", {"model_name": "m"}, 202, OK, "Processing worker updates..."),
    ("GPUs", "scale", {"model_name": "m", "number_gpu": 10}, 202, OK, "Processing worker updates..."),
    ("negative GPUs", "scale", {"model_name": "m", "number_gpu": -1}, 202, OK, "Processing worker updates..."),
    ("an endless timeout", "scale", {"model_name": "m", "timeout": -1}, 202, OK, "Processing worker updates..."),
    ("no timeout", "scale", {"model_name": "m", "timeout": 0}, 202, OK, "Processing worker updates..."),
    ("a range", "scale", {"model_name": "m", "min_worker": 1, "max_worker": 2, "synchronous": True}, 200, OK, "Workers scaled to 1 for model: m"),
    ("a version that is not there", "scale", {"model_name": "m", "model_version": "0.0", "min_worker": 1}, 404, NOT_FOUND, "Model version: 0.0"),
    ("a model that is not there", "scale", {"model_name": "nobody", "min_worker": 1}, 404, NOT_FOUND, "Model not found: nobody"),
    ("min above max", "scale", {"model_name": "m", "min_worker": 2, "max_worker": 1}, 400, INVALID_ARGUMENT, "max_worker"),
    ("a negative min", "scale", {"model_name": "m", "min_worker": -1}, 500, INTERNAL, "min_worker"),
    ("a negative max", "scale", {"model_name": "m", "max_worker": -1}, 400, INVALID_ARGUMENT, "max_worker"),
    ("no worker", "scale", {"model_name": "m", "min_worker": 0, "synchronous": True}, 200, None, "Workers scaled to 0 for model: m"),
    # Unregistering.
    ("the default version", "unregister", {"model_name": "m", "model_version": "2.0"}, 403, FAILED_PRECONDITION, "default"),
    ("a version that is not there", "unregister", {"model_name": "m", "model_version": "0.0"}, 404, NOT_FOUND, "Model version: 0.0"),
    ("another version", "unregister", {"model_name": "m", "model_version": "1.0"}, 200, OK, 'Model "m" unregistered'),
    ("the last version", "unregister", {"model_name": "m"}, 200, OK, 'Model "m" unregistered'),
    ("a model that is not there", "unregister", {"model_name": "m"}, 404, NOT_FOUND, "Model not found: m"),
    # Numbers of a registration.
    ("workers at once", "register", {"url": "native", "model_name": "n", "initial_workers": 1}, None, OK, "Processing worker updates..."),
    ("workers in time", "register", {"url": "native", "model_name": "w", "initial_workers": 1, "synchronous": True}, 200, OK,
     'Model "w" Version: 1.0 registered with 1 initial workers'),
    ("its end", "unregister", {"model_name": "w"}, 200, OK, 'Model "w" unregistered'),
    ("no time to start", "register", {"url": "native", "model_name": "s", "initial_workers": 1, "startup_timeout": 0}, 500, None,
     "Error while creating workers"),
    ("what failed is not there", "describe", {"model_name": "s"}, 404, NOT_FOUND, "Model not found: s"),
    ("no time, and nothing to start", "register", {"url": "native", "model_name": "s", "startup_timeout": 0}, 200, OK, "0 initial workers"),
    ("its end", "unregister", {"model_name": "s"}, 200, OK, ""),
    ("numbers that are none", "register",
     {"url": "native", "model_name": "b", "batch_size": "dd", "max_batch_delay": "junk", "initial_workers": "-", "response_timeout": "0x"}, 200, None,
     "0 initial workers"),
    ("take their defaults", "describe", {"model_name": "b"}, 200, None, '"batchSize": 1'),
    ("its end", "unregister", {"model_name": "b"}, 200, None, ""),
    ("negative workers", "register", {"url": "native", "model_name": "b", "initial_workers": -1}, 200, OK, "0 initial workers"),
    ("its end", "unregister", {"model_name": "b"}, 200, OK, ""),
    ("a synchronous that is no boolean", "register", {"url": "native", "model_name": "b", "synchronous": "-1"}, 200, None, "0 initial workers"),
    ("its end", "unregister", {"model_name": "b"}, 200, None, ""),
    # Handlers.
    ("a handler that is none", "register", {"url": "native", "model_name": "h", "handler": "invalidHandler"}, 200, OK, "0 initial workers"),
    ("cannot be started", "scale", {"model_name": "h", "min_worker": 1, "synchronous": True}, 500, INTERNAL, "Error while creating workers"),
    ("is still described", "describe", {"model_name": "h"}, 200, OK, '"modelName": "h"'),
    ("its end", "unregister", {"model_name": "h"}, 200, OK, ""),
    ("a handler that is none, with workers", "register",
     {"url": "native", "model_name": "h", "handler": "invalidHandler", "initial_workers": 1, "synchronous": True}, 500, INTERNAL,
     "Error while creating workers"),
    ("what failed is not there", "describe", {"model_name": "h"}, 404, NOT_FOUND, "Model not found: h"),
    ("a Python handler", "register", {"url": "python", "model_name": "p"}, 200, OK, "0 initial workers"),
    ("its end", "unregister", {"model_name": "p"}, 200, OK, ""),
)

# Every key of a model's description.
MODEL_KEYS = {
    "modelName", "modelVersion", "modelUrl", "runtime", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout",
    "startupTimeout", "maxRetryTimeoutInSec", "clientTimeoutInMills", "parallelType", "parallelLevel", "deviceType", "continuousBatching",
    "useJobTicket", "useVenv", "stateful", "sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize",
    "loadedAtStartup", "workers", "jobQueueStatus"}
WORKER_KEYS = {"id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"}


def check_description(case, model):
    """The keys and the forms of their values, of a model with a worker."""
    case.assertLessEqual(MODEL_KEYS, set(model))
    case.assertEqual(set(model["jobQueueStatus"]), {"remainingCapacity", "pendingRequests"})
    for worker in model["workers"]:
        case.assertLessEqual(WORKER_KEYS, set(worker))
        case.assertRegex(worker["startTime"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        case.assertIn(worker["status"], ("READY", "UNLOADING"))
        case.assertEqual((worker["gpu"], worker["gpuUsage"]), (False, "N/A"))
        case.assertGreater(worker["pid"], 0)


def make_folders(store, make_model):
    """The folders of FOLDERS. Their models have no worker unless a call asks for some."""
    for name, handler, version in FOLDERS:
        folder = make_model(store / name, stages=1, version=version)
        config = folder / "model-config.yaml"
        config.write_text(config.read_text().replace("minWorkers: 1\n", ""))
        if handler:
            manifest = folder / "MAR-INF" / "MANIFEST.json"
            manifest.write_text(manifest.read_text().replace('"modelVersion"', f'"handler": "{handler}", "modelVersion"'))
