"""The networks and the deformation operator: tensors in, tensors out.

``generator``  the paper's U-Net, assembled from MONAI's blocks
``flow``       from the network's raw field to a displacement, and from that to a warped image
``anonymizer`` both together: the public class
``weights``    state dictionaries on disk, checked by digest before they are read
``bundle``     the MONAI bundle: what it is, what is known about it, and the model it holds
``initial``    ``python -m prichexy_model.initial``: the random weights that stand before training
``inference``  what the bundle's ``configs/inference.json`` runs

Nothing here knows DICOM, files of a hospital or where the work comes from.
"""
