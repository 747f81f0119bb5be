"""What learns on the device. What scores is in ``contract.models``."""
