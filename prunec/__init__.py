"""prunec compiles and exports sparse convolutional networks: train, cut, prove, ship."""
