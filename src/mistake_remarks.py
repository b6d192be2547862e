"""What we see in single test images that a network is most confidently wrong about.

Written by hand after looking at each, by their number in CIFAR-10's test set, in
English and Hebrew. An image without a remark has not been among a network's ten.
"""

REMARKS: dict[str, dict[int, str]] = {"en": {}, "he": {}}
