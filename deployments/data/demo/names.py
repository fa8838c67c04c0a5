"""The words that invented people and places are made of: Brazilian names, streets that are nowhere."""

from __future__ import annotations

FEMALE = (
    *("Adriana", "Alessandra", "Aline", "Amanda", "Ana Clara", "Ana Luísa", "Beatriz", "Bruna"),
    *("Camila", "Carla", "Cecília", "Cláudia", "Conceição", "Daniela", "Débora", "Edna", "Eliane"),
    *("Fernanda", "Gabriela", "Helena", "Heloísa", "Ingrid", "Irene", "Isadora", "Jandira"),
    *("Joana", "Juliana", "Larissa", "Letícia", "Lívia", "Lúcia", "Luzia", "Manuela", "Márcia"),
    *("Maria Aparecida", "Maria Eduarda", "Mariana", "Marlene", "Natália", "Neide", "Patrícia"),
    *("Priscila", "Raimunda", "Renata", "Rosângela", "Sandra", "Simone", "Sônia", "Sueli"),
    *("Tatiane", "Terezinha", "Valentina", "Vanessa", "Vera Lúcia", "Vitória", "Yasmin", "Zilda"),
)
MALE = (
    *("Ademir", "Adriano", "Alexandre", "André", "Antônio", "Arthur", "Benedito", "Bernardo"),
    *("Bruno", "Caio", "Carlos", "Cícero", "Cláudio", "Daniel", "Davi", "Diego", "Edson"),
    *("Eduardo", "Enzo", "Fábio", "Felipe", "Fernando", "Francisco", "Gabriel", "Geraldo"),
    *("Guilherme", "Gustavo", "Heitor", "Henrique", "Igor", "João Pedro", "Joaquim", "Jorge"),
    *("José Carlos", "Leandro", "Leonardo", "Lucas", "Luiz", "Marcelo", "Márcio", "Mateus"),
    *("Miguel", "Nelson", "Otávio", "Paulo", "Pedro", "Rafael", "Raimundo", "Ricardo", "Rodrigo"),
    *("Sebastião", "Sérgio", "Severino", "Thiago", "Valdir", "Vinícius", "Wagner", "Wellington"),
)
FAMILY = (
    *("Albuquerque", "Almeida", "Alves", "Amaral", "Andrade", "Araújo", "Assunção", "Azevedo"),
    *("Barbosa", "Barreto", "Barros", "Batista", "Bezerra", "Borges", "Brandão", "Brito"),
    *("Camargo", "Campos", "Cardoso", "Carvalho", "Castro", "Cavalcanti", "Coelho", "Correia"),
    *("Costa", "Cunha", "da Silva", "de Jesus", "de Oliveira", "de Souza", "Dias", "do Carmo"),
    *("dos Santos", "Duarte", "Farias", "Fernandes", "Ferraz", "Ferreira", "Figueiredo"),
    *("Fonseca", "Freitas", "Garcia", "Gomes", "Gonçalves", "Guimarães", "Lacerda", "Leite"),
    *("Lima", "Lopes", "Macedo", "Machado", "Magalhães", "Marques", "Martins", "Matos", "Melo"),
    *("Mendes", "Miranda", "Monteiro", "Moraes", "Moreira", "Moura", "Nascimento", "Nogueira"),
    *("Nunes", "Pacheco", "Peixoto", "Pereira", "Pinheiro", "Pinto", "Queiroz", "Ramos"),
    *("Rezende", "Ribeiro", "Rocha", "Rodrigues", "Sales", "Sampaio", "Siqueira", "Tavares"),
    *("Teixeira", "Torres", "Vasconcelos", "Viana", "Vieira", "Xavier"),
)
STREET_KINDS = ("Rua", "Rua", "Rua", "Avenida", "Travessa", "Alameda", "Praça")
STREETS = (
    *("das Palmeiras Azuis", "do Ipê Sereno", "dos Sabiás de Papel", "da Lua Mansa"),
    *("das Três Jangadas", "do Relógio Parado", "da Garça Dourada", "dos Vaga-Lumes"),
    *("do Trem das Onze e Meia", "da Nascente Clara", "dos Cajueiros Altos", "do Violeiro Manso"),
    *("da Pedra Cantante", "dos Girassóis de Vidro", "do Mirante Velho", "da Chuva Fina"),
    *("das Pipas Coloridas", "do Poço Encantado", "dos Tucanos Tímidos", "da Rede de Algodão"),
)
DISTRICTS = (
    *("Jardim das Marés", "Vila Aurora Nova", "Bairro dos Ventos", "Parque do Sossego"),
    *("Alto da Colina Verde", "Vila dos Tecelões", "Jardim Horizonte Claro", "Beira-Rio de Cima"),
)
# City, state, postal code's first five digits, telephone area: towns that are on no map.
TOWNS = (
    ("Serra Clara", "SP", "19990", "18"),
    ("Porto Ipê", "SP", "11990", "13"),
    ("Nova Jangada", "CE", "63990", "88"),
    ("Campo Alto do Sul", "RS", "99990", "54"),
    ("Ribeirão das Flores", "MG", "39990", "33"),
    ("Santa Luzia do Mar", "BA", "48990", "74"),
)
