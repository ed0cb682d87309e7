package node

import "testing"

func TestNumber(t *testing.T) {
	for _, test := range []struct {
		s    string
		want float64
		ok   bool
	}{
		{"9187", 9187, true},
		{" 60\n", 60, true},
		{"0.5", 0.5, true},
		{".5", 0.5, true},
		{"1.", 1, true},
		{"-1", -1, true},
		{"+1", 1, true},
		{"1e3", 1000, true},
		{"0x23e3", 9187, true},
		{"0b11", 3, true},
		{"0o17", 15, true},
		{"010", 10, true},
		{"", 0, false},
		{"60s", 0, false},
		{"1_000", 0, false},
		{"0x_1", 0, false},
		{"0x1p4", 0, false},
		{"-0x1", 0, false},
		{"Infinity", 0, false},
		{"nan", 0, false},
		{"1e999", 0, false},
		{"1 2", 0, false},
	} {
		got, ok := Number(test.s)
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%q: %v, %v; want %v, %v", test.s, got, ok, test.want, test.ok)
		}
	}
}

func TestNumberString(t *testing.T) {
	for n, want := range map[float64]string{
		123: "123", -1: "-1", 1.5: "1.5", 1e20: "100000000000000000000", 1e21: "1e+21", 1e-7: "1e-7",
		12345678901234567890: "12345678901234567000",
	} {
		if got := NumberString(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}
