"""Exports the compressed network: the student's backbone alone, as safetensors and as ONNX.

networks.py     backbones out of the store; the safetensors file, written and read
onnx_files.py   the ONNX file, written and run
measuring.py    parameters, multiply-adds, latency
exporting.py    all of it for one run, checked on the test images
"""

from hkrun.export.exporting import Export, export_run
from hkrun.export.networks import load_network
