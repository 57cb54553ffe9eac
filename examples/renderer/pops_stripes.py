"""A renderer of one's own: the first numbers of an embedding as grey stripes. `pip install` this folder, then

pops run "texturing(teapot.png, tiger.png)" --renderer stripes -o out.png
"""

from PIL import Image

from pops.render import Capabilities


class Stripes:
    name = "stripes"

    def __init__(self, folder, options):  # options.space: the CLIP space of the model; options.device, dtype, ...
        self.capabilities = Capabilities(options.space, native=(64, 64))

    def render(self, vectors, seeds, size, options):  # vectors [n, D] un-normalised float32, size (height, width)
        stripes = (vectors[:, :16].sigmoid() * 255).byte().numpy()
        return [Image.fromarray(row[None]).resize((size[1], size[0]), Image.Resampling.NEAREST) for row in stripes]
