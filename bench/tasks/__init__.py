"""What the contenders are given: data of real images, and weights of our own pretraining."""
