"""Stored pixels come out as they are stored, and go back the same."""

import copy
import struct
import traceback
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate

from prichexy_testing.dicoms import CANARIES, phantom, radiograph_dataset, write
from prichexy_testing.shared_data import CHEST, CHEST_TRANSCODED, NOT_CHEST, need, pydicom_data
from prichexy_worker import inspection
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.layout import MAX_SIDE
from prichexy_worker.pixels import Radiograph, decode, refuse_padding, with_pixels

SYNTAXES = ("explicit-little-endian", "rle-lossless", "jpeg-ls-lossless")
DEPTHS = [(8, 8), (8, 16), (9, 16), (10, 16), (12, 16), (14, 16), (15, 16), (16, 16)]


def read(path: Path):
    return inspection.read(need(path).read_bytes())


def reread(dataset):
    return inspection.read(write(dataset))


def rejection(dataset) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode(dataset)
    return caught.value


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("stored", "allocated"), DEPTHS)
def test_every_depth_and_sign_is_decoded_in_every_native_syntax(stored, allocated, signed, syntax):
    expected = phantom(31, 29, bits_stored=stored, signed=signed)
    expected = expected.astype(f"{'i' if signed else 'u'}{allocated // 8}")
    dataset = radiograph_dataset(
        values=expected,
        bits_stored=stored,
        bits_allocated=allocated,
        signed=signed,
        transfer_syntax=syntax,
    )
    radiograph = decode(reread(dataset))
    assert radiograph.values.dtype == expected.dtype
    assert np.array_equal(radiograph.values, expected)
    assert radiograph.bits_stored == stored
    assert not radiograph.values.flags.writeable


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("stored", "allocated"), DEPTHS)
def test_pixels_survive_the_way_out_and_back_in_every_output_syntax(
    stored, allocated, signed, syntax
):
    values = phantom(33, 47, bits_stored=stored, signed=signed)
    values = values.astype(f"{'i' if signed else 'u'}{allocated // 8}")
    source = radiograph_dataset()
    result = reread(with_pixels(source, Radiograph(values, stored, inverted=True), syntax))
    assert result.PhotometricInterpretation == "MONOCHROME1"
    assert (result.Rows, result.Columns, result.HighBit) == (33, 47, stored - 1)
    assert result.PixelRepresentation == int(signed)
    assert np.array_equal(decode(result).values, values)


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
def test_a_real_image_is_compressed_and_noise_stays_as_it_is(syntax):
    source = radiograph_dataset()
    smooth = with_pixels(source, Radiograph(phantom(300, 300, bits_stored=10), 10), syntax)
    assert smooth.file_meta.TransferSyntaxUID.is_compressed
    assert len(smooth.PixelData) < 300 * 300 * 2
    noise = np.random.default_rng(1).integers(0, 1 << 16, (30, 30)).astype(np.uint16)
    kept = reread(with_pixels(source, Radiograph(noise, 16), syntax))
    assert kept.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert np.array_equal(decode(kept).values, noise)


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
@pytest.mark.parametrize("signed", [False, True])
def test_eight_bits_in_a_wider_container_are_compressed_as_eight(syntax, signed):
    values = np.repeat(np.arange(40), 60).reshape(40, 60).astype(np.int16 if signed else np.uint16)
    coded = with_pixels(radiograph_dataset(), Radiograph(values, 8), syntax)
    assert coded.file_meta.TransferSyntaxUID.is_compressed
    assert coded.BitsAllocated == 8
    assert np.array_equal(decode(reread(coded)).values, values)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 19),
    columns=st.integers(1, 19),
    stored=st.integers(8, 16),
    signed=st.booleans(),
    syntax=st.sampled_from(SYNTAXES),
    seed=st.integers(0, 2**16),
)
def test_any_image_survives_in_any_syntax(rows, columns, stored, signed, syntax, seed):
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1))) if signed else (0, 1 << stored)
    values = np.random.default_rng(seed).integers(low, high, (rows, columns))
    values = values.astype(f"{'i' if signed else 'u'}{1 if stored == 8 else 2}")
    result = reread(with_pixels(radiograph_dataset(), Radiograph(values, stored), syntax))
    assert np.array_equal(decode(result).values, values)


def test_bits_above_the_stored_ones_do_not_survive():
    values = phantom(bits_stored=12)
    hidden = values | np.uint16(0xA000)
    radiograph = decode(radiograph_dataset(values=hidden, bits_stored=12))
    assert np.array_equal(radiograph.values, values)


def test_a_signed_value_is_extended_from_its_highest_stored_bit():
    words = np.array([[0x0800, 0x07FF], [0xF800, 0x0FFF]], dtype=np.uint16).view(np.int16)
    radiograph = decode(radiograph_dataset(values=words, bits_stored=12, signed=True))
    assert radiograph.values.tolist() == [[-2048, 2047], [-2048, -1]]


def test_bytes_after_the_last_pixel_are_left_behind():
    dataset = radiograph_dataset()
    expected = decode(dataset)
    dataset.PixelData += CANARIES["PatientID"].encode() + b" "
    result = with_pixels(dataset, decode(dataset))
    assert np.array_equal(decode(result).values, expected.values)
    assert len(result.PixelData) == expected.values.nbytes
    assert CANARIES["PatientID"].encode() not in result.PixelData


def test_pixel_data_is_padded_to_an_even_length_with_one_null():
    values = np.full((3, 3), 200, dtype=np.uint8)
    result = with_pixels(radiograph_dataset(), Radiograph(values, 8))
    assert result.PixelData == b"\xc8" * 9 + b"\0"


def test_the_dataset_given_is_not_altered():
    dataset = radiograph_dataset(nested=True)
    before, meta = copy.deepcopy(dataset), copy.deepcopy(dataset.file_meta)
    values = phantom(20, 10, bits_stored=9)
    for syntax in SYNTAXES:
        with_pixels(dataset, Radiograph(values, 9, inverted=True), syntax)
    decode(dataset)
    assert dataset == before
    assert dataset.file_meta == meta


def test_only_what_describes_the_pixels_changes():
    dataset = reread(radiograph_dataset(window=(100, 50), rescale=(2, 1), padding=(0, 5)))
    result = reread(with_pixels(dataset, decode(dataset), "rle-lossless"))
    assert result.file_meta.TransferSyntaxUID == uid.RLELossless
    del result.PixelData, dataset.PixelData
    assert result == dataset


def test_text_of_another_character_set_survives_the_way_out():
    dataset = radiograph_dataset(SpecificCharacterSet="ISO_IR 192", ProtocolName="胸部 正面")
    result = reread(with_pixels(reread(dataset), decode(dataset)))
    assert result.ProtocolName == "胸部 正面"


@pytest.mark.parametrize(
    ("signed", "padding", "expected"),
    [
        (False, None, None),
        (False, 0, (0, 0)),
        (False, (4095, 4000), (4000, 4095)),
        (False, 65535, None),  # no 12-bit pixel can have it
        (True, -2000, (-2000, -2000)),
        (True, (-2048, -2000), (-2048, -2000)),
    ],
)
def test_the_padding_range_is_read_as_far_as_pixels_can_reach_it(signed, padding, expected):
    dataset = radiograph_dataset(bits_stored=12, signed=signed, padding=padding)
    assert decode(reread(dataset)).padding == expected


def test_a_negative_padding_value_written_as_unsigned_is_mended():
    dataset = radiograph_dataset(bits_stored=16, signed=True)
    dataset.add(DataElement(0x00280120, "US", 65536 - 2000))
    assert decode(dataset).padding == (-2000, -2000)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PixelData": None}, Reason.NO_PIXEL_DATA),
        ({"PixelData": b""}, Reason.NO_PIXEL_DATA),
        ({"PixelData": None, "FloatPixelData": b"\0" * 4}, Reason.UNSUPPORTED_PIXELS),
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.COLOUR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR),
        ({"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3}, Reason.COLOUR),
        ({"PhotometricInterpretation": ""}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsAllocated": 32}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsAllocated": 12}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsAllocated": None}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 7, "HighBit": 6}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 17, "HighBit": 16}, Reason.UNSUPPORTED_PIXELS),
        ({"HighBit": 15}, Reason.UNSUPPORTED_PIXELS),
        ({"PixelRepresentation": 2}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 0}, Reason.UNSUPPORTED_PIXELS),
        ({"Columns": None}, Reason.UNSUPPORTED_PIXELS),
        ({"Columns": [80, 80]}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": MAX_SIDE + 1}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 30000, "Columns": 30000}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 97}, Reason.UNDECODABLE),
        ({"PixelData": b"\0\0"}, Reason.UNDECODABLE),
    ],
)
def test_what_cannot_be_handled_is_rejected_with_its_reason(changes, reason):
    assert rejection(radiograph_dataset(**changes)).reason is reason


def test_an_unknown_transfer_syntax_is_not_guessed():
    dataset = radiograph_dataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2
    assert rejection(dataset).reason is Reason.UNSUPPORTED_PIXELS
    del dataset.file_meta.TransferSyntaxUID
    assert rejection(dataset).reason is Reason.UNSUPPORTED_PIXELS


def test_compressed_bytes_under_a_native_syntax_are_not_shown_as_pixels():
    dataset = with_pixels(radiograph_dataset(), decode(radiograph_dataset()), "rle-lossless")
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = 8
    assert rejection(dataset).reason is Reason.UNDECODABLE


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_codestreams_are_undecodable_and_name_no_value(syntax, damage, capfd, caplog):
    dataset = with_pixels(radiograph_dataset(), decode(radiograph_dataset()), syntax)
    frame = {
        "cut": dataset.PixelData[20:200],
        "garbage": CANARIES["PatientName"].encode() * 40,
        "empty": b"\0\0",
    }[damage]
    dataset.PixelData = encapsulate([frame])
    error = rejection(dataset)
    assert error.reason is Reason.UNDECODABLE
    assert error.__cause__ is None
    told = "".join(traceback.format_exception(error))
    assert "CANARY" not in told
    assert "another exception" not in told
    captured = capfd.readouterr()
    assert "CANARY" not in str(error) + captured.out + captured.err
    assert caplog.records == []


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
def test_a_codestream_that_announces_another_size_is_not_decoded(syntax):
    dataset = radiograph_dataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    side = 60_000
    if syntax == uid.JPEG2000Lossless:
        siz = struct.pack(">HHH8I3H", 0xFF51, 41, 0, side, side, 0, 0, side, side, 0, 0, 1, 0, 0)
        frame = b"\xff\x4f" + siz
    else:
        sof = 0xFFF7 if syntax == uid.JPEGLSLossless else 0xFFC3
        frame = b"\xff\xd8" + struct.pack(">HHBHHB", sof, 11, 12, side, side, 1) + b"\1\x11\0"
    element = DataElement(0x7FE00010, "OB", encapsulate([frame]))
    element.is_undefined_length = True
    dataset.add(element)
    error = rejection(dataset)
    assert error.reason is Reason.UNDECODABLE
    assert error.detail == "the codestream is not Rows x Columns"


def test_lossless_copies_of_a_real_radiograph_decode_to_the_same_pixels():
    expected = decode(read(CHEST / "barre_CR-MONO1-10-chest.dcm")).values
    files = sorted(need(CHEST_TRANSCODED).glob("barre_*.dcm"))
    assert len(files) >= 7
    for file in files:
        assert np.array_equal(decode(read(file)).values, expected), file.name


@pytest.mark.parametrize("kind", ["lossless", "lossy"])
def test_jpeg_2000_of_a_real_radiograph_decodes_to_its_uncompressed_twin(kind):
    letter = {"lossless": "R", "lossy": "I"}[kind]
    coded = decode(read(pydicom_data(f"RG1_J2K{letter}.dcm")))
    native = decode(read(pydicom_data(f"RG1_UNC{letter}.dcm")))
    assert np.array_equal(coded.values, native.values)
    assert coded.bits_stored == 15


def test_near_lossless_jpeg_ls_decodes_as_its_lossless_copy():
    coded = decode(read(CHEST / "wg04_RG1_JLSN.dcm"))
    assert np.array_equal(
        coded.values, decode(read(CHEST_TRANSCODED / "RG1_J2KLossless.dcm")).values
    )


def test_jpeg_ls_and_rle_of_one_real_radiograph_agree():
    rle = decode(read(CHEST / "presidio_pseudoPHI_0_ORIGINAL_RLE.dcm"))
    jpeg_ls = decode(read(CHEST_TRANSCODED / "davidson_JPEGLS.dcm"))
    assert np.array_equal(rle.values, jpeg_ls.values)
    assert rle.inverted
    assert rle.bits_stored == 10


def test_twelve_bit_extended_jpeg_is_decoded_within_its_loss(capfd):
    lossy = decode(read(NOT_CHEST / "wg04_RG2_JPLY.dcm"))
    lossless = decode(read(NOT_CHEST / "wg04_RG2_JPLL.dcm"))
    difference = np.abs(lossy.values.astype(int) - lossless.values)
    assert difference.mean() < 5
    assert lossy.values.max() < 1024


def test_grey_baseline_jpeg_is_decoded_within_its_loss():
    values = phantom(64, 48, bits_stored=8)
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, "jpeg", quality=95)
    dataset = radiograph_dataset(values=values, bits_stored=8)
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    frame = encapsulate([buffer.getvalue()])
    dataset.add(DataElement(0x7FE00010, "OB", frame, is_undefined_length=True))
    decoded = decode(reread(dataset)).values
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - values).mean() < 2


def test_a_damaged_jpeg_costs_a_process_and_not_the_worker():
    # GDCM aborts its process on a Huffman table whose marker is gone.
    buffer = BytesIO()
    values = phantom(24, 24, bits_stored=8)
    Image.fromarray(values).save(buffer, "jpeg", quality=90)
    damaged = buffer.getvalue().replace(b"\xff\xc4\x00\xb5", b"\x69\xc4\x00\xb5", 1)
    assert damaged != buffer.getvalue()
    dataset = radiograph_dataset(values=values, bits_stored=8)
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    frame = encapsulate([damaged])
    dataset.add(DataElement(0x7FE00010, "OB", frame, is_undefined_length=True))
    assert rejection(dataset).reason is Reason.UNDECODABLE


def test_lossless_jpeg_of_first_order_is_decoded():
    dataset = read(pydicom_data("JPGLosslessP14SV1_1s_1f_8b.dcm"))
    assert dataset.file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1
    values = decode(dataset).values
    assert values.shape == (768, 1024)
    assert (values.min(), values.max()) == (0, 255)


def test_near_lossless_values_beyond_the_stored_bits_are_clipped_not_wrapped():
    white = np.full((16, 16), 4095, dtype=np.uint16)
    dataset = radiograph_dataset(values=white, bits_stored=12)
    coded = with_pixels(dataset, Radiograph(white + np.uint16(3), 13), "jpeg-ls-lossless")
    coded.file_meta.TransferSyntaxUID = uid.JPEGLSNearLossless
    coded.BitsStored, coded.HighBit = 12, 11
    assert (decode(coded).values == 4095).all()


def test_padded_says_where_there_is_no_image():
    values = np.array([[0, 5, 6], [7, 8, 0]], dtype=np.uint16)
    assert Radiograph(values, 12, padding=(5, 7)).padded().tolist() == [
        [False, True, True],
        [True, False, False],
    ]
    assert Radiograph(values, 12, padding=(9, 9)).padded() is None
    assert Radiograph(values, 12).padded() is None


@pytest.mark.parametrize(("padded", "refused"), [(50, False), (51, True), (100, True)])
def test_no_more_than_half_of_an_image_may_be_called_padding(padded, refused):
    values = np.full((10, 10), 900, np.uint16)
    values.ravel()[:padded] = np.arange(padded)
    radiograph = Radiograph(values, 12, padding=(0, 899))
    if not refused:
        refuse_padding(radiograph)
        return
    with pytest.raises(Rejected) as caught:
        refuse_padding(radiograph)
    assert (caught.value.reason, caught.value.detail) == (
        Reason.UNSUPPORTED_PIXELS,
        "more than 50% is padding",
    )


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("signed", [False, True])
def test_the_content_of_an_image_is_what_is_stored(bits, signed):
    radiograph = decode(radiograph_dataset(bits_stored=bits, signed=signed))
    stored = with_pixels(radiograph_dataset(), radiograph).PixelData
    assert radiograph.content() == stored
