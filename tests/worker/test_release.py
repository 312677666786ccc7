"""The residual search: what of the source it finds in a result, and what it rightly does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ImplicitVRLittleEndian

from prichexy_testing.dicoms import CANARIES, canary_values, code, lut, radiograph_dataset, write
from prichexy_testing.shared_data import CHEST, NOT_CHEST, chest_files, need
from prichexy_worker import header, inspection
from prichexy_worker.contract import ModelInfo, Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.identifiers import needles
from prichexy_worker.pixels import Syntax, decode, with_pixels
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.release import check_release, surviving_identifiers

#: What stands in the place of the identifying values, as the header engine would write it.
PSEUDONYMS = {
    "PatientName": "PRICHEXY^PX-K3JQ7WZ5TBLA2M4N6OPQRSTU",
    "PatientID": "PX-K3JQ7WZ5TBLA2M4N6OPQRSTU",
    "PatientBirthDate": "",
    "AccessionNumber": "",
    "StudyID": "",
    "StudyInstanceUID": "2.25.329800735698586629295641978511506172918",
    "SeriesInstanceUID": "2.25.113059749145936325402354257176981405696",
    "SOPInstanceUID": "2.25.48268126001345267912345678901234567890",
    "StudyDate": "",
    "StudyTime": "",
    "ReferringPhysicianName": "",
}
BASIC = code("113100", "DCM", "Basic Application Confidentiality Profile")
#: Elements whose own value is compared with nothing: they are planted elsewhere in each test.
PLANTED = 0x00104000  # Patient Comments


def source(**attributes: object) -> FileDataset:
    return radiograph_dataset(nested=True, private=True, **attributes)  # type: ignore[arg-type]


def result(**attributes: object) -> FileDataset:
    made = radiograph_dataset(identity=PSEUDONYMS, window=(2048, 4096), **attributes)  # type: ignore[arg-type]
    made.Manufacturer = attributes.get("Manufacturer", "")
    made.file_meta.ImplementationVersionName = "PRICHEXY_0.1.0"
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = ["DICOM PS3.15 2026c Basic Profile", "key 0123456789abcdef"]
    made.DeidentificationMethodCodeSequence = [BASIC]
    made.DerivationDescription = "The anatomy in the chest radiograph was deformed by a model."
    return made


def planted(text: str) -> bytes:
    made = result()
    made.add(DataElement(PLANTED, "LT", text))
    return write(made)


def test_a_result_without_any_value_of_the_source_is_released() -> None:
    assert surviving_identifiers(source(), write(result())) == ()
    check_release(source(), write(result()))


def test_the_source_itself_is_withheld_with_the_tags_of_all_that_identifies() -> None:
    found = surviving_identifiers(source(), write(source()))
    for keyword in CANARIES:
        assert (
            "{:04X},{:04X}".format(*divmod(pydicom.datadict.tag_for_keyword(keyword), 2**16))
            in found
        )
    assert "0040,0275/0040,0008/0010,1002/0010,0020" in found
    assert "0009,1001" in found


@pytest.mark.parametrize("keyword", CANARIES)
def test_a_value_is_found_wherever_it_went(keyword: str) -> None:
    tag = "{:04X},{:04X}".format(*divmod(pydicom.datadict.tag_for_keyword(keyword), 2**16))
    assert tag in surviving_identifiers(source(), planted(f"seen: {CANARIES[keyword]} there"))


def in_a_sequence(made: FileDataset, value: bytes) -> bytes:
    item = Dataset()
    item.ImageComments = value.decode()
    made.RequestAttributesSequence = [code("1", "99X", "y")]
    made.RequestAttributesSequence[0].RequestedProcedureCodeSequence = [item]
    return write(made)


def in_a_private_element(made: FileDataset, value: bytes) -> bytes:
    made.private_block(0x0029, "X", create=True).add_new(1, "UN", value)
    return write(made)


def in_an_unknown_element(made: FileDataset, value: bytes) -> bytes:
    made.add(DataElement(0x00189998, "UN", b"\1\2" + value + b"\0"))
    return write(made)


def in_an_overlay(made: FileDataset, value: bytes) -> bytes:
    made.add(DataElement(0x60003000, "OW", b"\0" * 99 + value + b"\1" * 201))
    return write(made)


def in_a_lookup_table(made: FileDataset, value: bytes) -> bytes:
    table = lut(np.arange(256), first=0, bits=8)
    data = table[0x00283006].value
    table[0x00283006].value = data[:100] + value + data[100 + len(value) :]
    made.VOILUTSequence = [table]
    return write(made)


def in_the_preamble(made: FileDataset, value: bytes) -> bytes:
    return value.ljust(128, b"\0") + write(made)[128:]


def in_the_file_meta(made: FileDataset, value: bytes) -> bytes:
    made.file_meta.PrivateInformationCreatorUID = "1.2.3"
    made.file_meta.PrivateInformation = value
    return write(made)


def among_the_pixels(made: FileDataset, value: bytes) -> bytes:
    pixels = made.PixelData
    made.PixelData = pixels[:1001] + value + pixels[1001 + len(value) :]
    return write(made)


def after_the_pixels(made: FileDataset, value: bytes) -> bytes:
    made.PixelData += value + b"\0" * (len(value) % 2)
    return write(made)


def in_the_trailing_padding(made: FileDataset, value: bytes) -> bytes:
    made.add(DataElement(0xFFFCFFFC, "OB", value + b"\0" * (len(value) % 2)))
    return write(made)


def in_an_image_type(made: FileDataset, value: bytes) -> bytes:
    made.ImageType = ["DERIVED", "PRIMARY", value.decode()]
    return write(made)


PLACES = [
    in_a_sequence,
    in_a_private_element,
    in_an_unknown_element,
    in_an_overlay,
    in_a_lookup_table,
    in_the_preamble,
    in_the_file_meta,
    among_the_pixels,
    after_the_pixels,
    in_the_trailing_padding,
]


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize("place", [*PLACES, in_an_image_type])
def test_no_place_in_a_file_is_left_out(place: Callable[[FileDataset, bytes], bytes]) -> None:
    found = surviving_identifiers(source(), place(result(), b"CANARY-PATIENT-4711"))
    assert "0010,0020" in found


@pytest.mark.parametrize(
    "keyword", ["ImageType", "Manufacturer", "ScheduledProcedureStepDescription"]
)
def test_free_text_that_stayed_where_it_was_is_found(keyword: str) -> None:
    value = ["DERIVED", "PRIMARY", "SEEN BY SMITHSON"] if keyword == "ImageType" else "by SMITHSON"
    assert surviving_identifiers(source(**{keyword: value}), write(result(**{keyword: value})))


@pytest.mark.parametrize(
    "shown",
    ["CANARYFAMILY", "CANARYGIVEN", "CANARYMIDDLE", "Canaryfamily", "Canarygiven, Canaryfamily"],
)
def test_a_part_of_a_name_is_found(shown: str) -> None:
    assert surviving_identifiers(source(), planted(f"for {shown}.")) == ("0010,0010", NESTED_NAME)


NESTED_NAME = "0040,0275/0040,0008/0010,1002/0010,0010"


@pytest.mark.parametrize(
    ("name", "shown", "found"),
    [
        ("ROTH^EVA", "Dr. Roth", True),
        ("ROTH^EVA", "Rothenburg", False),  # words of four and five letters count as words
        ("ROTH^EVA", "EVA", True),  # shorter ones as a whole value
        ("ROTH^EVA", "EVALUATION", False),
        ("Miller-Schmidt^Jo", "SCHMIDT", True),
        ("Okafor^Ada", "ada", False),
        ("UNKNOWN", "unknown UNKNOWN", False),
    ],
)
def test_short_names_are_found_where_they_cannot_be_chance(
    name: str, shown: str, found: bool
) -> None:
    survivors = surviving_identifiers(source(PatientName=name), planted(shown))
    assert ("0010,0010" in survivors) is found


@pytest.mark.parametrize(
    "shown",
    [
        "19330417",
        "1933-04-17",
        "17.04.1933",
        "04/17/1933",
        "17/04/1933",
        "17 Apr 1933",
        "17-APR-1933",
    ],
)
def test_a_date_is_found_as_people_write_it(shown: str) -> None:
    assert surviving_identifiers(source(), planted(f"born {shown}")) == ("0010,0030",)


@pytest.mark.parametrize("shown", ["074713.419", "074713", "07:47:13", "20070919074713"])
def test_a_time_is_found_as_people_write_it(shown: str) -> None:
    assert "0008,0030" in surviving_identifiers(source(), planted(shown))


@pytest.mark.parametrize("written", ["1995.07.20", "1995:07:20"])
def test_a_date_in_an_old_notation_is_found(written: str) -> None:
    old = source()
    old[0x00080020] = RawDataElement(
        pydicom.tag.Tag(0x00080020), "DA", 10, written.encode(), 0, False, True
    )
    assert surviving_identifiers(old, planted("on 20.07.1995")) == ("0008,0020",)


@pytest.mark.parametrize(
    ("character_set", "name", "codec"),
    [
        ("ISO_IR 100", "Müller^Jürgen", "latin-1"),
        ("ISO_IR 100", "Müller^Jürgen", "utf-8"),
        ("ISO_IR 192", "山田^太郎", "utf-8"),
        ("ISO_IR 192", "山田^太郎", "utf-16-le"),
        ("ISO_IR 192", "山田^太郎", "utf-16-be"),
        ("ISO_IR 144", "Люкceмбypг^Рoза", "iso8859_5"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "shift_jis"),
        ("GB18030", "王^小东小东", "gb18030"),
        ("ISO_IR 192", "CANARYNAME^X", "utf-16-le"),
    ],
)
def test_a_name_is_found_in_its_character_set_and_in_unicode(
    character_set: str, name: str, codec: str
) -> None:
    named = pydicom.dcmread(
        BytesIO(write(source(SpecificCharacterSet=character_set, PatientName=name)))
    )
    for part in (name, name.partition("^")[0], name.partition("^")[2]):
        if len(part.encode(codec)) < 4:
            continue
        shown = in_an_unknown_element(result(), part.encode(codec))
        assert "0010,0010" in surviving_identifiers(named, shown), part
        assert "0010,0010" not in surviving_identifiers(named, write(result()))


@pytest.mark.parametrize(
    "file", ["fodicom_chrJapMultiExplicitIR6_nopixel.dcm", "fodicom_chrKoreanMulti_nopixel.dcm"]
)
def test_names_in_iso_2022_are_found_as_they_came_and_in_unicode(file: str) -> None:
    content = need(NOT_CHEST / file).read_bytes()
    raw = pydicom.dcmread(BytesIO(content)).get_item(0x00100010).value
    text = str(pydicom.dcmread(BytesIO(content)).PatientName)
    named = pydicom.dcmread(BytesIO(content))
    phonetic = text.rpartition("=")[2]
    for shown in (raw, text.encode(), text.encode("utf-16-le"), phonetic.encode()):
        assert "0010,0010" in surviving_identifiers(named, in_an_unknown_element(result(), shown))


@pytest.mark.parametrize(
    "attributes",
    [
        {"StudyDescription": "CHEST", "SeriesDescription": "PA", "StudyID": "1"},
        {"PatientID": "4096"},  # the window's width, unchanged
        {"PatientName": "M", "PatientSex": "M", "StationName": "CR", "StudyTime": "000000"},
        {"PatientID": "586629"},  # occurs within a pseudonym's digits
        {"StationName": "DCM", "ProtocolName": BASIC.CodeMeaning},  # a published code's meaning
        {"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_15444_1"},
        {"OperatorsName": "anonymous", "ReferringPhysicianName": "^^^^"},
    ],
)
def test_short_and_common_values_are_no_alarm(attributes: dict[str, object]) -> None:
    kept = ("LossyImageCompression", "LossyImageCompressionMethod", "PatientSex")
    same = {keyword: attributes[keyword] for keyword in kept if keyword in attributes}
    before = source(window=(2048, 4096), **attributes)
    assert surviving_identifiers(before, write(result(**same))) == ()


@pytest.mark.parametrize("number", ["4096", "12345", "00482917"])
def test_a_short_patient_id_is_found_in_text(number: str) -> None:
    assert "0010,0020" in surviving_identifiers(source(PatientID=number), planted(f"id {number}!"))


def test_public_uids_may_stay_and_no_other() -> None:
    uids = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "FrameOfReferenceUID": "1.2.840.99.1.20.3"}
    assert surviving_identifiers(source(**uids), write(result(**uids))) == ("0020,0052",)


def test_own_texts_are_no_alarm_and_only_whole() -> None:
    named = source(PatientName="PROFILE^ANNA")
    made = result()
    texts = {"DICOM PS3.15 2026c Basic Profile", BASIC.CodeMeaning}
    assert surviving_identifiers(named, write(made)) == ("0010,0010",)
    assert surviving_identifiers(named, write(made), own_texts=texts) == ()
    made.DeidentificationMethod = "DICOM PS3.15 2026c Basic Profile, ANNA PROFILE"
    assert surviving_identifiers(named, write(made), own_texts=texts) == ("0010,0010",)


def test_bytes_that_are_no_text_are_found_by_probes() -> None:
    icon = np.random.default_rng(3).integers(0, 256, 64 * 64, dtype=np.uint8).tobytes()
    before = source()
    before.add(DataElement(0x60003000, "OW", icon))
    assert surviving_identifiers(before, in_an_overlay(result(), icon[500:900])) == ("6000,3000",)
    assert surviving_identifiers(before, write(result())) == ()


def test_text_within_unknown_bytes_of_the_source_is_found() -> None:
    before = source()
    before.add(DataElement(0x00191010, "UN", b"\x10\0\x20\0LO\x0c\0SECRETNUMBER\0\1"))
    assert surviving_identifiers(before, planted("a SECRETNUMBER")) == ("0019,1010",)


def test_file_meta_and_preamble_of_the_source_count_too() -> None:
    before = source()
    before.file_meta.SourceApplicationEntityTitle = "WARD7SCANNER"
    before.preamble = b"SMITHSON-LABEL".ljust(128, b"\0")
    found = surviving_identifiers(before, planted("WARD7SCANNER SMITHSON-LABEL"))
    assert found == ("0002,0016", "preamble")


def test_the_source_is_not_altered_and_stays_unread() -> None:
    content = write(source())
    before = pydicom.dcmread(BytesIO(content))
    surviving_identifiers(before, write(result()))
    assert isinstance(before.get_item(0x00100010), RawDataElement)
    assert before == pydicom.dcmread(BytesIO(content))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "1.2.840.10008.1.2.2"])
def test_a_source_in_another_encoding_is_understood(syntax: str) -> None:
    before = pydicom.dcmread(
        BytesIO(write(radiograph_dataset(transfer_syntax=syntax, nested=True)))
    )
    for value in canary_values():
        assert surviving_identifiers(before, planted(f"a {value} b")), value
    assert surviving_identifiers(before, write(result())) == ()


def test_the_refusal_names_the_tags_and_no_value() -> None:
    with pytest.raises(Rejected) as refused:
        check_release(source(), write(source()))
    assert refused.value.reason is Reason.IDENTITY_SURVIVED
    assert "0010,0010" in str(refused.value)
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        write(result())[:-1],
        write(result()) + b"CANARY",
        write(radiograph_dataset(identity=PSEUDONYMS, transfer_syntax=ImplicitVRLittleEndian)),
        write(result(Rows=None)),
    ],
)
def test_what_cannot_be_searched_is_withheld(damaged: bytes) -> None:
    with pytest.raises(Rejected, match="could not be searched") as refused:
        check_release(source(), damaged)
    assert refused.value.reason is Reason.IDENTITY_SURVIVED
    assert "CANARY" not in str(refused.value)


def test_a_source_value_that_was_not_read_withholds_the_result() -> None:
    before = source()
    tag = pydicom.tag.Tag(0x00104000)
    before[tag] = RawDataElement(tag, "LT", 4000, None, 0, False, True)
    with pytest.raises(Rejected, match="could not be searched"):
        check_release(before, write(result()))


def test_no_text_of_a_needle_shows_a_value() -> None:
    assert "CANARY" not in "".join(repr(needle) for needle in needles(source()))


def test_random_pixels_of_ten_megabytes_are_searched_within_a_second_without_alarm() -> None:
    values = np.random.default_rng(5).normal(53, 5, (3200, 3200)).astype(np.uint8)
    many = {0x00400000 + 2 * number: f"VALUE {number:05} OF MANY" for number in range(200)}
    before = source(values=values[:8, :8], bits_stored=8)
    for number, text in enumerate(many.values()):
        before.add(DataElement(0x00110010 + number, "LO", text))
    made = write(result(values=values, bits_stored=8))
    start = time.process_time()
    assert surviving_identifiers(before, made) == ()
    assert (
        time.process_time() - start < 2
    )  # half a second here; twice the promise for slow machines


WORDS = st.text(
    st.characters(codec="utf-8", categories=("L", "N")), min_size=8, max_size=24
).filter(lambda text: text == text.strip())


@settings(max_examples=60, deadline=None)
@given(text=WORDS, keyword=st.sampled_from(["StudyDescription", "PatientName", "InstitutionName"]))
def test_any_text_is_found_when_it_is_there_and_only_then(text: str, keyword: str) -> None:
    assume(text.encode() not in write(result()))
    before = source(SpecificCharacterSet="ISO_IR 192", **{keyword: text})
    clean = write(result())
    tag = "{:04X},{:04X}".format(*divmod(pydicom.datadict.tag_for_keyword(keyword), 2**16))
    assert tag not in surviving_identifiers(before, clean)
    for codec in ("utf-8", "utf-16-le"):
        shown = in_an_unknown_element(result(), text.encode(codec))
        assert tag in surviving_identifiers(before, shown)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 9000), damage=st.binary(max_size=6), cut=st.integers(0, 40))
def test_a_damaged_result_is_searched_or_refused_and_nothing_else(
    position: int, damage: bytes, cut: int
) -> None:
    made = write(result())
    damaged = made[:position] + damage + made[position + cut :]
    try:
        surviving_identifiers(source(), damaged)
    except Rejected as refused:
        assert refused.reason is Reason.IDENTITY_SURVIVED


def deidentified(before: Dataset) -> bytes:
    model = ModelInfo("model", "1", "ab" * 32, "untrained", "Random weights: nothing is claimed.")
    pseudonyms = Pseudonyms(bytes(range(32)))
    provenance = header.Provenance(
        software_version="0.1.0", model=model, key_id=pseudonyms.key_id, deformed=True
    )
    made = BytesIO()
    pydicom.dcmwrite(
        made, header.deidentify(before, pseudonyms, provenance), enforce_file_format=True
    )
    return made.getvalue()


@pytest.mark.parametrize("path", chest_files(), ids=lambda path: path.name)
def test_what_the_header_engine_makes_of_a_real_file_is_released(path: Path) -> None:
    before = inspection.read(path.read_bytes())
    assert surviving_identifiers(before, deidentified(before)) == ()


def test_each_value_of_a_real_header_is_found_when_it_is_added_to_a_result() -> None:
    path = need(CHEST / "presidio_pseudoPHI_0_ORIGINAL_RLE.dcm")
    before = inspection.read(path.read_bytes())
    clean = pydicom.dcmread(BytesIO(deidentified(before)))
    keywords = """PatientName PatientID PatientBirthDate AccessionNumber StudyDate StudyTime
        SeriesTime AcquisitionTime ContentTime InstitutionName InstitutionAddress StudyDescription
        ReferringPhysicianName ReferringPhysicianAddress PerformingPhysicianName StudyInstanceUID
        SeriesInstanceUID SOPInstanceUID PatientAge SoftwareVersions DerivationDescription"""
    for keyword in keywords.split():
        value = str(before[keyword].value)
        clean.add(DataElement(PLANTED, "LT", value))
        made = BytesIO()
        pydicom.dcmwrite(made, clean, enforce_file_format=True)
        tag = f"{before[keyword].tag.group:04X},{before[keyword].tag.elem:04X}"
        assert tag in surviving_identifiers(before, made.getvalue()), keyword


@pytest.mark.parametrize(
    ("keyword", "value", "tag", "identity"),
    [
        ("SeriesNumber", 47110, "0010,0020", {"PatientID": "47110"}),
        ("InstanceNumber", 47110, "0010,0020", {"PatientID": "P-0047110"}),
        ("SeriesNumber", 8150, "0008,0050", {"AccessionNumber": "8150"}),
        ("WindowCenter", "1970.0101", "0010,0030", {"PatientBirthDate": "19700101"}),
        ("ExposureTime", "20070919", "0008,0020", {}),
        ("VerticesOfThePolygonalShutter", [12, 34, 56, 78], "0010,0020", {"PatientID": "12345678"}),
    ],
)
def test_a_number_that_is_an_identifier_is_found_though_it_stands_where_it_stood(
    keyword: str, value: object, tag: str, identity: dict[str, str]
) -> None:
    before = source(**{**identity, keyword: value})
    assert tag in surviving_identifiers(before, write(result(**{keyword: value})))


@pytest.mark.parametrize(
    ("keyword", "value", "identity"),
    [
        ("KVP", "120", {"PatientID": "120"}),
        ("SeriesNumber", 47110, {"PatientID": "47111"}),
        ("SeriesNumber", 47110, {"PatientName": "47110^X"}),  # a name is no number
        ("Exposure", "1200", {"StudyTime": "001200"}),
        ("ExposureTime", "11970", {"PatientBirthDate": "19700101"}),  # 01Jan1970
        ("WindowCenter", "2047", {"PatientID": "2047"}),
        ("ImagerPixelSpacing", [0.1, 0.25], {"PatientID": "1025"}),
    ],
)
def test_a_number_of_an_ordinary_image_is_no_alarm(
    keyword: str, value: object, identity: dict[str, str]
) -> None:
    same = {keyword: value}
    before = source(**{**identity, **same})
    made = result(**same)
    if keyword == "WindowCenter":
        before.WindowWidth = made.WindowWidth = 4096
    assert surviving_identifiers(before, write(made)) == ()


@pytest.mark.parametrize("first", [("1", "DCM"), ("113100", "DCM")])
def test_an_item_without_a_code_is_not_covered_by_the_code_of_another(
    first: tuple[str, str],
) -> None:
    made = result()
    named = Dataset()
    named.CodeMeaning = "CANARYHOSPITAL"
    with_scheme = Dataset()
    with_scheme.CodingSchemeDesignator, with_scheme.CodeMeaning = "DCM", "CANARYHOSPITAL"
    for later in (named, with_scheme):
        made.PurposeOfReferenceCodeSequence = [code(*first, "Chest"), later]
        assert surviving_identifiers(source(), write(made)) == ("0008,0080",)


def test_a_scheme_of_a_later_item_does_not_publish_an_earlier_code() -> None:
    made = result()
    earlier = code("1", "99X", "CANARYHOSPITAL")
    del earlier.CodingSchemeDesignator
    made.PurposeOfReferenceCodeSequence = [earlier, BASIC]
    assert surviving_identifiers(source(), write(made)) == ("0008,0080",)


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
def test_a_value_among_compressed_pixels_is_found_in_what_was_compressed(syntax: Syntax) -> None:
    values = np.zeros((64, 64), np.uint8)
    shown = np.frombuffer(b"CANARY-PATIENT-4711", np.uint8)
    values[20, 5 : 5 + shown.size] = shown
    plain = result(values=values, bits_stored=8)
    radiograph = decode(plain)
    packed = with_pixels(plain, radiograph, syntax)
    assert packed.file_meta.TransferSyntaxUID.is_encapsulated
    made = BytesIO()
    pydicom.dcmwrite(made, packed, enforce_file_format=True)
    found = surviving_identifiers(source(), made.getvalue(), pixels=radiograph.content())
    assert "0010,0020" in found
    with pytest.raises(Rejected, match="compressed pixels"):
        check_release(source(), made.getvalue())
