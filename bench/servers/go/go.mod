module bench/gofan

go 1.21
