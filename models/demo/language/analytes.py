"""Vital signs and laboratory tests with their usual reference ranges.

Ranges are those that large laboratories and patient references print (Mayo Clinic Laboratories,
MedlinePlus); laboratories differ, and the demo model's card says so.
"""

# ruff: noqa: E501 — rows of a table stay on one line
from __future__ import annotations

from dataclasses import dataclass

from models.demo.language.items import Language


@dataclass(frozen=True)
class Range:
    """Bounds that still count as normal, in the analyte's unit; None is no bound."""

    low: float | None
    high: float | None

    def verdict(self, value: float) -> str:
        """`low`, `normal` or `high`."""
        if self.low is not None and value < self.low:
            return "low"
        return "high" if self.high is not None and value > self.high else "normal"


@dataclass(frozen=True)
class Analyte:
    """One measurement: names (first the canonical one), unit, ranges by population, terms."""

    id: str
    names: dict[Language, tuple[str, ...]]
    unit: dict[Language, str]
    decimals: int
    ranges: dict[str, Range]
    span: tuple[float, float]
    terms: dict[tuple[Language, str], str]

    @property
    def is_by_sex(self) -> bool:
        """Whether men and women have different ranges."""
        return "man" in self.ranges


# id; Portuguese names; English names; units pt|en (or one for both); decimals; ranges;
# plausible span; term when low pt/en; term when high pt/en ("-" is none)
_TABLE = """
hr; frequência cardíaca|FC|pulso|batimentos cardíacos; heart rate|HR|pulse|pulse rate; bpm; 0; adult 60:100, newborn 100:160; 32:190; bradicardia/bradycardia; taquicardia/tachycardia
rr; frequência respiratória|FR|respirações por minuto; respiratory rate|RR|breathing rate; irpm|breaths/min; 0; adult 12:20, newborn 30:60; 6:75; bradipneia/bradypnea; taquipneia/tachypnea
temp; temperatura axilar|temperatura|temperatura corporal; body temperature|temperature|temp; °C; 1; adult 36.1:37.2; 34.0:41.0; -; -
spo2; saturação de oxigênio|SpO2|saturação; oxygen saturation|SpO2|O2 sat; %; 0; adult 95:100; 78:100; -; -
sbp; pressão arterial sistólica|pressão sistólica|PAS; systolic blood pressure|systolic pressure|SBP; mmHg; 0; adult 90:120; 66:210; hipotensão/hypotension; -
dbp; pressão arterial diastólica|pressão diastólica|PAD; diastolic blood pressure|diastolic pressure|DBP; mmHg; 0; adult 60:80; 38:125; -; -
glucose; glicemia de jejum|glicose de jejum|glicemia em jejum; fasting glucose|fasting blood glucose|fasting blood sugar; mg/dL; 0; adult 70:99; 38:290; hipoglicemia/hypoglycemia; hiperglicemia/hyperglycemia
hba1c; hemoglobina glicada|HbA1c|A1c; glycated hemoglobin|HbA1c|A1c; %; 1; adult 4.0:5.6; 3.5:13.0; -; -
na; sódio|sódio sérico|Na; sodium|serum sodium|Na; mEq/L; 0; adult 135:145; 112:168; hiponatremia/hyponatremia; hipernatremia/hypernatremia
k; potássio|potássio sérico|K; potassium|serum potassium|K; mEq/L; 1; adult 3.5:5.0; 2.0:7.6; hipocalemia/hypokalemia; hipercalemia/hyperkalemia
cl; cloro|cloreto|cloreto sérico; chloride|serum chloride|Cl; mEq/L; 0; adult 98:106; 82:122; hipocloremia/hypochloremia; hipercloremia/hyperchloremia
ca; cálcio total|cálcio|cálcio sérico; total calcium|calcium|serum calcium; mg/dL; 1; adult 8.5:10.5; 6.0:14.0; hipocalcemia/hypocalcemia; hipercalcemia/hypercalcemia
ica; cálcio iônico|cálcio ionizado; ionized calcium|free calcium; mmol/L; 2; adult 1.12:1.32; 0.80:1.70; hipocalcemia/hypocalcemia; hipercalcemia/hypercalcemia
mg; magnésio|magnésio sérico|Mg; magnesium|serum magnesium|Mg; mg/dL; 1; adult 1.7:2.2; 0.8:4.0; hipomagnesemia/hypomagnesemia; hipermagnesemia/hypermagnesemia
p; fósforo|fosfato sérico|fósforo sérico; phosphate|phosphorus|serum phosphate; mg/dL; 1; adult 2.5:4.5; 1.0:8.0; hipofosfatemia/hypophosphatemia; hiperfosfatemia/hyperphosphatemia
hco3; bicarbonato|bicarbonato sérico|HCO3; bicarbonate|serum bicarbonate|HCO3; mEq/L; 0; adult 22:26; 8:42; -; -
ph; pH arterial|pH do sangue arterial; arterial pH|arterial blood pH; -; 2; adult 7.35:7.45; 6.95:7.70; acidemia/acidemia; alcalemia/alkalemia
pco2; PaCO2|pressão parcial de gás carbônico; PaCO2|partial pressure of carbon dioxide; mmHg; 0; adult 35:45; 18:85; hipocapnia/hypocapnia; hipercapnia/hypercapnia
po2; PaO2|pressão parcial de oxigênio; PaO2|partial pressure of oxygen; mmHg; 0; adult 80:100; 42:100; hipoxemia/hypoxemia; -
lactate; lactato|lactato arterial|ácido lático; lactate|blood lactate|lactic acid; mmol/L; 1; adult 0.5:2.0; 0.5:11.0; -; hiperlactatemia/hyperlactatemia
hb; hemoglobina|Hb; hemoglobin|Hb; g/dL; 1; man 13.5:17.5, woman 12.0:15.5, pregnant 11.0:; 6.0:19.5; anemia/anemia; -
ht; hematócrito|Ht; hematocrit|Hct; %; 0; man 41:50, woman 36:44; 18:62; -; -
wbc; leucócitos|glóbulos brancos|contagem de leucócitos; white blood cells|WBC|leukocyte count; mil/mm³|×10⁹/L; 1; adult 4.0:11.0; 1.0:30.0; leucopenia/leukopenia; leucocitose/leukocytosis
plt; plaquetas|contagem de plaquetas; platelets|platelet count; mil/mm³|×10⁹/L; 0; adult 150:450; 15:890; trombocitopenia/thrombocytopenia; trombocitose/thrombocytosis
neut; neutrófilos|contagem de neutrófilos; neutrophils|neutrophil count; mil/mm³|×10⁹/L; 1; adult 1.8:7.7; 0.3:18.0; -; neutrofilia/neutrophilia
lymph; linfócitos|contagem de linfócitos; lymphocytes|lymphocyte count; mil/mm³|×10⁹/L; 1; adult 1.0:4.8; 0.2:12.0; linfopenia/lymphopenia; linfocitose/lymphocytosis
mcv; volume corpuscular médio|VCM; mean corpuscular volume|MCV; fL; 0; adult 80:100; 58:128; microcitose/microcytosis; macrocitose/macrocytosis
creat; creatinina|creatinina sérica; creatinine|serum creatinine; mg/dL; 1; man 0.7:1.3, woman 0.6:1.1; 0.2:8.0; -; -
uric; ácido úrico|uricemia; uric acid|serum urate; mg/dL; 1; man 3.4:7.0, woman 2.4:6.0; 1.0:13.0; -; hiperuricemia/hyperuricemia
ast; AST|TGO|aspartato aminotransferase; AST|SGOT|aspartate aminotransferase; U/L; 0; adult 8:48; 3:390; -; -
alt; ALT|TGP|alanina aminotransferase; ALT|SGPT|alanine aminotransferase; U/L; 0; adult 7:55; 2:390; -; -
alp; fosfatase alcalina|FA; alkaline phosphatase|ALP; U/L; 0; adult 40:129; 14:480; -; -
ggt; gama-GT|GGT; gamma-GT|GGT; U/L; 0; adult 8:61; 3:390; -; -
bili; bilirrubina total|bilirrubinas totais; total bilirubin|serum total bilirubin; mg/dL; 1; adult 0.1:1.2; 0.1:14.0; -; hiperbilirrubinemia/hyperbilirubinemia
alb; albumina|albumina sérica; albumin|serum albumin; g/dL; 1; adult 3.5:5.0; 1.5:6.0; hipoalbuminemia/hypoalbuminemia; -
tp; proteínas totais|proteína total; total protein|serum total protein; g/dL; 1; adult 6.3:7.9; 4.0:10.5; -; -
ldh; LDH|desidrogenase lática; LDH|lactate dehydrogenase; U/L; 0; adult 122:222; 70:780; -; -
inr; INR|RNI; INR|international normalized ratio; -; 1; adult 0.8:1.1; 0.6:6.0; -; -
aptt; TTPa|tempo de tromboplastina parcial ativada; aPTT|activated partial thromboplastin time; s; 0; adult 25:37; 15:110; -; -
fibrinogen; fibrinogênio|fibrinogênio plasmático; fibrinogen|plasma fibrinogen; mg/dL; 0; adult 200:400; 60:780; -; -
ddimer; dímero-D|D-dímero; D-dimer|plasma D-dimer; ng/mL; 0; adult :500; 90:2600; -; -
tsh; TSH|hormônio tireoestimulante; TSH|thyroid-stimulating hormone; mUI/L|mIU/L; 1; adult 0.4:4.0; 0.1:18.0; -; -
ft4; T4 livre|tiroxina livre; free T4|free thyroxine; ng/dL; 1; adult 0.8:1.8; 0.2:5.0; -; -
chol; colesterol total|colesterol; total cholesterol|cholesterol; mg/dL; 0; adult :199; 110:340; -; hipercolesterolemia/hypercholesterolemia
ldl; colesterol LDL|LDL; LDL cholesterol|LDL; mg/dL; 0; adult :129; 45:250; -; -
hdl; colesterol HDL|HDL; HDL cholesterol|HDL; mg/dL; 0; man 40:, woman 50:; 20:90; -; -
tg; triglicerídeos|triglicérides; triglycerides|serum triglycerides; mg/dL; 0; adult :149; 50:620; -; hipertrigliceridemia/hypertriglyceridemia
crp; proteína C reativa|PCR; C-reactive protein|CRP; mg/L; 1; adult :5.0; 0.3:98.0; -; -
ferritin; ferritina|ferritina sérica; ferritin|serum ferritin; ng/mL; 0; man 24:336, woman 11:307; 4:820; -; hiperferritinemia/hyperferritinemia
iron; ferro sérico|ferro; serum iron|iron; µg/dL; 0; adult 60:170; 18:290; -; -
b12; vitamina B12|cobalamina; vitamin B12|cobalamin; pg/mL; 0; adult 200:900; 80:1400; -; -
vitd; vitamina D|25-hidroxivitamina D; vitamin D|25-hydroxyvitamin D; ng/mL; 0; adult 20:50; 6:98; -; -
amylase; amilase|amilase sérica; amylase|serum amylase; U/L; 0; adult 30:110; 12:640; -; hiperamilasemia/hyperamylasemia
lipase; lipase|lipase sérica; lipase|serum lipase; U/L; 0; adult 13:60; 5:640; -; -
ck; CK|creatinofosfoquinase|CPK; CK|creatine kinase|CPK; U/L; 0; man 39:308, woman 26:192; 12:1400; -; -
pth; PTH|paratormônio; PTH|parathyroid hormone; pg/mL; 0; adult 15:65; 4:280; -; -
cortisol; cortisol matinal|cortisol da manhã; morning cortisol|cortisol in the morning; µg/dL; 0; adult 7:25; 2:58; -; -
bmi; índice de massa corporal|IMC; body mass index|BMI; kg/m²; 1; adult 18.5:24.9; 14.0:45.0; baixo peso/underweight; -
gap; ânion gap|intervalo aniônico; anion gap|serum anion gap; mEq/L; 0; adult 7:15; 2:36; -; -
osm; osmolalidade sérica|osmolalidade; serum osmolality|osmolality; mOsm/kg; 0; adult 275:295; 238:350; -; -
"""


def _bound(text: str) -> float | None:
    return float(text) if text else None


def _analyte(line: str) -> Analyte:
    id_, pt, en, units, decimals, ranges, span, low, high = (
        part.strip() for part in line.split(";")
    )
    pt_unit, _, en_unit = units.partition("|")
    pt_unit = "" if pt_unit == "-" else pt_unit
    terms: dict[tuple[Language, str], str] = {}
    for verdict, pair in (("low", low), ("high", high)):
        if pair != "-":
            terms["pt", verdict], terms["en", verdict] = pair.split("/")
    bounds = {}
    for entry in ranges.split(","):
        population, _, limits = entry.strip().partition(" ")
        least, _, most = limits.partition(":")
        bounds[population] = Range(_bound(least), _bound(most))
    first, _, last = span.partition(":")
    return Analyte(
        id_,
        {"pt": tuple(pt.split("|")), "en": tuple(en.split("|"))},
        {"pt": pt_unit, "en": en_unit or pt_unit},
        int(decimals),
        bounds,
        (float(first), float(last)),
        terms,
    )


ANALYTES = tuple(_analyte(line) for line in _TABLE.strip().splitlines())
BY_ID = {analyte.id: analyte for analyte in ANALYTES}
