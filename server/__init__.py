"""The federation server: asks the devices of a cohort, merges what they learnt, hands it back."""
