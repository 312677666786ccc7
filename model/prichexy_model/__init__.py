"""The networks and the deformation operator: tensors in, tensors out.

What anonymises:

``generator``      the paper's U-Net, assembled from MONAI's blocks
``flow``           from the network's raw field to a displacement, and from that to a warped image
``anonymizer``     both together: the public class
``multiscale``     the same with a coarse field on top, which moves contours

What it is compared with:

``privacynet``     Privacy-Net: a U-Net that paints the anonymised image
``dppix``          DP-Pix: coarse pixels with Laplace noise
``random_field``   random smooth deformations
``methods``        all of them, and doing nothing, under one interface

What it is trained and judged with:

``verifier``       tells whether two radiographs are of one patient
``classifier``     tells which abnormalities a radiograph shows
``backbones``      the networks from image to features that both stand on
``preprocessing``  from a radiograph to what a backbone was made for
``losses``         what is minimised

Files:

``weights``        state dictionaries on disk, checked by digest before they are read
``bundle``         the MONAI bundle: what it is, what is known about it, and the models it holds
``initial``        ``python -m prichexy_model.initial``: the random weights before training
``inference``      what the bundle's ``configs/inference.json`` runs

Nothing here knows DICOM, files of a hospital or where the work comes from.
"""
