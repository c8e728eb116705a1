"""The runners: one file a runtime on a device."""
