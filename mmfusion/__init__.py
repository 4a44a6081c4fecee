"""mmfusion: audio-visual fusion for event labels and captions. Heavy imports happen on use."""

__version__ = "0.1.0"
