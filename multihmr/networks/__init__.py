"""Networks: Multi-HMR, GLNet and their parts."""
