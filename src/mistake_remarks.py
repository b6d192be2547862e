"""What we see in single test images that a network is most confidently wrong about.

Written by hand after looking at each, by their number in CIFAR-10's test set, in
English and Hebrew. An image without a remark has not been among a network's ten.
"""

REMARKS = {
    "en": {
        118: "a dark bird of prey before black",
        147: "a young owl whose round face fills the image",
        247: "a grey truck under a grey sky, as ships are photographed",
        305: "a long, low convertible under a wide, pale sky",
        853: "a pickup truck, which should be in neither class",
        1049: "a clear stag, but in a round frame",
        1181: "a cat that looks out of a hole in something spotted",
        1718: "a seaplane on the water",
        2096: "an ostrich, of which little more than the neck is clear",
        2128: "a fawn curled up on bright green, like a frog",
        3789: "nothing but a wheel and a mudguard",
        4779: "a clear fire engine: the network's fault",
        4784: "a seaplane on the water",
        5548: "a sail and its reflection against the sky",
        6669: "a thin dog in an orange coat on a wide lawn",
        7462: "a boat on its trailer, on land, where cars stand",
        7839: "brown, lying down; to us it looks more like a dog",
        9127: "a clear ship, seen from above: the network's fault",
        9817: "a clear truck, but without its trailer",
    },
    "he": {
        118: "עוף דורס כהה על רקע שחור",
        147: "ינשוף צעיר שפניו העגולות ממלאות את התמונה",
        247: "משאית אפורה תחת שמיים אפורים, כמו בצילומי ספינות",
        305: "מכונית פתוחה, ארוכה ונמוכה, תחת שמיים בהירים ורחבים",
        853: "טנדר, שלא היה אמור להופיע באף אחת משתי המחלקות",
        1049: "אייל ברור, אבל בתוך מסגרת עגולה",
        1181: "חתול שמציץ מתוך פתח במשהו מנומר",
        1718: "מטוס ימי על פני המים",
        2096: "יען שרק צווארו נראה בבירור",
        2128: "עופר מכורבל על דשא ירוק, כמו צפרדע",
        3789: "רק גלגל וכנף של משאית",
        4779: "כבאית ברורה: זו טעות של הרשת",
        4784: "מטוס ימי על פני המים",
        5548: "מפרש והשתקפותו על רקע השמיים",
        6669: "כלב רזה בכיסוי כתום על מדשאה רחבה",
        7462: "סירה על נגרר, ביבשה, במקום שבו חונות מכוניות",
        7839: "חיה חומה ושוכבת; בעינינו היא דומה יותר לכלב",
        9127: "ספינה ברורה, במבט מלמעלה: זו טעות של הרשת",
        9817: "משאית ברורה, אבל בלי הנגרר שלה",
    },
}
