"""How good a network is: metrics of clips and folders of predictions, cost, and the errors of layers. It takes a
network and clips, and gives plain results. It writes nothing and knows no method."""
