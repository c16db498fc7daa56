"""MediaPipe's pose model from a wheel of PyPI, for tests without a model hub: detector and landmarks in one .task."""

import os
import zipfile
from pathlib import Path

from bpilib.system.files import PROJECT

WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
MEMBERS = {
    "pose_detector.tflite": "mediapipe/modules/pose_detection/pose_detection.tflite",
    "pose_landmarks_detector.tflite": "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
}
HOW = (
    f"{WHEEL} is not here: pip download mediapipe==0.10.21 --no-deps --python-version 3.11 --implementation cp "
    "--abi cp311 --platform manylinux_2_28_x86_64 -d data/models, or name it in the environment variable BPI_POSE_WHEEL"
)


def find_wheel() -> Path | None:
    """The wheel, if this machine has it."""
    named = os.environ.get("BPI_POSE_WHEEL")
    path = Path(named) if named else PROJECT / "data/models" / WHEEL
    return path if path.is_file() else None


def pixels_to_unit(model: bytes) -> bytes:
    """A landmark model with metadata that asks for pixels from 0 to 1, which the model in the wheel lacks."""
    import flatbuffers
    from mediapipe.tasks.metadata import metadata_schema_py_generated as meta
    from mediapipe.tasks.metadata import schema_py_generated as lite

    def packed(tree, identifier: bytes) -> bytes:
        builder = flatbuffers.Builder(len(model))
        builder.Finish(tree.Pack(builder), identifier)
        return bytes(builder.Output())

    network = lite.ModelT.InitFromObj(lite.Model.GetRootAsModel(bytearray(model), 0))
    scaling = meta.NormalizationOptionsT()
    scaling.mean, scaling.std = [0.0], [255.0]
    step = meta.ProcessUnitT()
    step.optionsType, step.options = meta.ProcessUnitOptions.NormalizationOptions, scaling
    colours = meta.ImagePropertiesT()
    colours.colorSpace = meta.ColorSpaceType.RGB
    content = meta.ContentT()
    content.contentPropertiesType, content.contentProperties = meta.ContentProperties.ImageProperties, colours
    image = meta.TensorMetadataT()
    image.name, image.content, image.processUnits = "image", content, [step]
    graph = meta.SubGraphMetadataT()
    graph.inputTensorMetadata = [image]
    graph.outputTensorMetadata = [meta.TensorMetadataT() for _ in network.subgraphs[0].outputs]
    about = meta.ModelMetadataT()
    about.subgraphMetadata, about.minParserVersion = [graph], "1.0.0"
    buffer, entry = lite.BufferT(), lite.MetadataT()
    buffer.data = list(packed(about, b"M001"))
    entry.name, entry.buffer = "TFLITE_METADATA", len(network.buffers)
    network.buffers.append(buffer)
    network.metadata = [*(network.metadata or []), entry]
    return packed(network, b"TFL3")


def write_task(wheel: Path, out: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """The wheel's two models as MediaPipe's Tasks want them: a zip whose members are stored, not deflated."""
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(out, "w", method) as task:
        for name, member in MEMBERS.items():
            content = archive.read(member)
            task.writestr(name, content if name == "pose_detector.tflite" else pixels_to_unit(content))
    return out
