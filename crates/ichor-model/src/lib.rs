//! Swin, head-wise gradient-infused self-attention, weights.
